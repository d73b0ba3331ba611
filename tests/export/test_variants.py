"""What a variant may cost, and graphs that compute the same in other forms."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from dermseg.data.index import IndexRow
from dermseg.errors import ModelError, UsageError
from dermseg.export.end_to_end import NOTES, add_ends
from dermseg.export.graph import opset_of
from dermseg.export.variants import Original, check_names, store_variants
from dermseg.images.packed import PackedMask
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import Postprocessing, Preprocessing
from dermseg.inference.postprocess import clean, to_probability, upsample_mask
from dermseg.inference.preprocess import to_input
from dermseg.inference.runtimes_openvino import import_openvino, openvino_installed
from dermseg.inference.session import OrtSession


def original_of(bundle: Path) -> Original:
    """The graph that finds dark regions, on drawn discs."""
    found = load_bundle(bundle)
    data, pre = found.read_model(), found.card.preprocessing
    post = found.card.postprocessing
    images, references, rows = [], [], []
    for i in range(4):
        disc = np.zeros((64, 64), np.uint8)
        cv2.circle(disc, (28 + 2 * i, 30), 12 + i, 1, cv2.FILLED)
        image = np.where(disc[..., None] > 0, np.uint8(60), np.uint8(200)).repeat(3, axis=2)
        images.append(to_input(image, pre))
        references.append(PackedMask.of(disc > 0))
        rows.append(
            IndexRow(
                image_id=str(i),
                image=f"{i}.png",
                masks=(f"{i}_mask.png",),
                dataset="discs",
                width=64,
                height=64,
            )
        )
    inputs = np.stack(images)
    seen: NDArray[np.float32] = to_probability(OrtSession(data, 1)(inputs)[:, 0])
    return Original(data, pre, post, inputs, seen, rows, references, lambda: inputs)


def test_a_variant_that_costs_dice_is_refused_unless_forced(tiny_bundle: Path) -> None:
    shifted = original_of(tiny_bundle)
    rolled = np.roll(shifted.inputs, 6, axis=3)  # the network is given other images than those it is held to
    worse = Original(**{**vars(shifted), "inputs": rolled})
    with pytest.raises(ModelError, match=r"'fp32' loses \d+\.\d\d Dice points") as refused:
        store_variants(worse, ["fp32"])
    assert "--force" in str(refused.value.hint)
    parity = store_variants(worse, ["fp32"], force=True).variants["fp32"].parity
    assert parity is not None
    assert parity["dice_reference"] - parity["dice"] > 0.003
    assert parity["flipped_pixels"] > 0.01
    assert parity["max_difference"] > 0.5


def test_a_refused_variant_does_not_take_the_others_with_it(tiny_bundle: Path) -> None:
    original = original_of(tiny_bundle)
    model = onnx.load_from_string(original.graph)
    # a first convolution that does nothing, for the head stays in float
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(eye, "eye"))
    model.graph.node[0].input[0] = "same"
    model.graph.node.insert(0, onnx.helper.make_node("Conv", ["image", "eye"], ["same"], name="first"))
    never_saw_light = lambda: np.full((8, 3, 64, 64), -1e-6, np.float32)  # noqa: E731
    changes = {"graph": model.SerializeToString(), "calibration": never_saw_light}
    told: list[str] = []
    stored = store_variants(Original(**{**vars(original), **changes}), ["fp32", "int8"], report=told.append)
    assert set(stored.variants) == {"fp32"} and set(stored.files) == {"model.onnx"}
    assert "Dice points" in stored.refused["int8"]
    assert any("refused" in line for line in told)


def test_a_variant_that_costs_nothing_is_stored_with_its_figures(tiny_bundle: Path) -> None:
    stored = store_variants(original_of(tiny_bundle), ["fp32"])
    parity = stored.variants["fp32"].parity
    assert parity is not None
    assert parity["dice"] == parity["dice_reference"] > 0.95
    assert (parity["max_difference"], parity["flipped_pixels"], parity["images"]) == (0.0, 0.0, 4)
    assert set(stored.files) == {"model.onnx"}
    assert all(row.p50_ms > 0 for row in stored.variants["fp32"].latency)


def test_a_variant_for_speed_that_is_slower_is_left_out(tiny_bundle: Path) -> None:
    # one convolution on three channels: 8 bits save nothing and converting costs
    stored = store_variants(original_of(tiny_bundle), ["fp32", "int8"])
    if "int8" in stored.variants:
        assert (stored.variants["int8"].speedup or 0) >= 1
    else:
        assert "times as fast as fp32" in stored.left_out["int8"]
        assert set(stored.files) == {"model.onnx"}


def test_names_of_variants() -> None:
    assert check_names(["int8"]) == ("fp16", "int8")
    assert check_names(["int8", "fp32", "fp32"]) == ("fp32", "int8")
    assert check_names(["int8-weights", "int8"]) == ("int8-weights", "int8")
    with pytest.raises(UsageError, match="unknown variant 'int4'"):
        check_names(["int4"])


@pytest.mark.parametrize("shape", [(64, 64), (231, 310), (40, 200), (7, 5), (1000, 30)])
@pytest.mark.parametrize("resize", ["area", "bilinear"])
def test_end_to_end_is_what_dermseg_does(tiny_bundle: Path, shape: tuple[int, int], resize: str) -> None:
    bundle = load_bundle(tiny_bundle)
    pre: Preprocessing = bundle.card.preprocessing.model_copy(update={"resize": resize})
    post = Postprocessing(threshold=0.4, temperature=1.7, keep_largest=False, fill_holes=False)
    data = add_ends(bundle.read_model(), pre, post)
    assert opset_of(onnx.load_from_string(data)) == 17
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    blobs = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), shape[::-1], interpolation=cv2.INTER_CUBIC)
    pair = np.stack([blobs, 255 - blobs])
    (masks,) = session.run(["mask"], {"pixels": pair})
    assert masks.shape == (2, *shape)
    for pixels, mask in zip(pair, masks, strict=True):
        logits = OrtSession(bundle.read_model(), 1)(to_input(pixels, pre)[None])
        expected = upsample_mask(clean(to_probability(logits[0, 0], post.temperature), post), shape)
        assert np.mean((mask > 127) != expected) < 0.005
    if openvino_installed():
        core = import_openvino().Core()
        compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        assert np.mean(compiled({"pixels": pair})["mask"] != masks) < 0.005
        assert "INFERENCE_PRECISION_HINT f32" in NOTES
