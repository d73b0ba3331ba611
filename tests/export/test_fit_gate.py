"""The pooled features of an ONNX graph, and a gate fitted with them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest

from dermseg.data.closeups import SHAPES, close_up
from dermseg.data.index import IndexRow, read_index, write_index
from dermseg.data.synthetic import synthesize
from dermseg.errors import DataError, ModelError
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import ModelCard, Postprocessing, Preprocessing, Variant
from dermseg.inference.predictor import load_model

onnx = pytest.importorskip("onnx", reason="graphs are made with onnx")

from dermseg.export import fit_gate as fitting  # noqa: E402
from dermseg.export.features import add_features, encoder_maps  # noqa: E402

SIDE = 64


def _graph() -> bytes:
    """Two strided convolutions, one enlargement, a skip: random weights, logits at the input's size."""
    rng = np.random.default_rng(0)
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    strided = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], **strided),
        helper.make_node("Relu", ["c1"], ["skip"]),
        helper.make_node("Conv", ["skip", "w2"], ["c2"], **strided),
        helper.make_node("Relu", ["c2"], ["deep"]),
        helper.make_node("Resize", ["deep", "", "twice"], ["large"], mode="linear"),
        helper.make_node("Concat", ["large", "skip"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "w3"], ["small"]),
        helper.make_node("Resize", ["small", "", "twice"], ["logits"], mode="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", floats, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", floats, ["n", 1, "h", "w"])],
        [
            weight("w1", 8, 3, 3, 3),
            weight("w2", 12, 8, 3, 3),
            weight("w3", 1, 20, 1, 1),
            onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    data = _graph()
    folder = tmp_path / "bundle"
    folder.mkdir()
    card = ModelCard(
        name="small",
        version="1",
        created="2026-11-21",
        summary="random weights",
        architecture="unet",
        parameters=100,
        licence="Apache-2.0",
        preprocessing=Preprocessing(height=SIDE, width=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3),
        postprocessing=Postprocessing(),
        variants={
            "fp32": Variant(file="model.onnx", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        },
        default_variant="fp32",
    )
    (folder / "model.onnx").write_bytes(data)
    (folder / "card.json").write_text(card.to_json())
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 synthetic images, a third in each split."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for i in range(60):
        image, mask, _ = synthesize(i, (SIDE, SIDE))
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / f"{i}_mask.png"), mask.astype(np.uint8) * 255)
        rows.append(
            IndexRow(
                image_id=str(i),
                image=str(folder / f"{i}.png"),
                masks=(str(folder / f"{i}_mask.png"),),
                dataset="synthetic",
                split=("train", "val", "calib")[i % 3],
                width=SIDE,
                height=SIDE,
            )
        )
    write_index(rows, folder / "index.csv")
    return folder / "index.csv"


def test_features_are_the_means_of_what_the_encoder_hands_on(bundle: Path) -> None:
    data = (bundle / "model.onnx").read_bytes()
    proto = onnx.load_from_string(data)
    assert encoder_maps(proto, SIDE) == {4: "deep", 2: "skip"}
    with_features = add_features(data, SIDE)
    assert add_features(with_features, SIDE) is with_features
    session = ort.InferenceSession(with_features, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    logits, features = session.run(None, {"image": image})
    probe = onnx.load_from_string(data)
    for name in ("deep", "skip"):
        probe.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    plain = ort.InferenceSession(probe.SerializeToString())
    same, deep, skip = plain.run(None, {"image": image})
    np.testing.assert_array_equal(logits, same)
    expected = np.concatenate([deep.mean(axis=(2, 3)), skip.mean(axis=(2, 3))], axis=1)
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_features_of_a_network_in_half_precision_are_float32() -> None:
    proto = onnx.load_from_string(_graph())
    for tensor in proto.graph.initializer:
        if tensor.name != "twice":
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    image = np.random.default_rng(1).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    found = []
    for data in (add_features(_graph(), SIDE), add_features(proto.SerializeToString(), SIDE)):
        session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        kind = np.float16 if "16" in session.get_inputs()[0].type else np.float32
        found.append(session.run(["features"], {"image": image.astype(kind)})[0])
    assert found[1].dtype == np.float32
    np.testing.assert_allclose(*found, atol=0.02)


def test_a_bundle_whose_graph_would_not_run_with_features_stays_as_it_is(
    bundle: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = load_bundle(bundle).card
    second = card.variants["fp32"].model_copy(update={"file": "second.onnx"})
    (bundle / "second.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    card = card.model_copy(update={"variants": card.variants | {"second": second}})
    (bundle / "card.json").write_text(card.to_json())
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    made = iter([add_features(_graph(), SIDE), b"no network"])
    monkeypatch.setattr(fitting, "add_features", lambda *_: next(made))
    with pytest.raises(ModelError, match="cannot load"):
        fitting.fit_bundle_gate(bundle, [index])
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_graph_without_an_encoder_stays_as_it_is(tiny_bundle: Path, index: Path) -> None:
    data = (tiny_bundle / "model.onnx").read_bytes()
    assert add_features(data, 64) is data
    with pytest.raises(ModelError, match="encoder"):
        fitting.fit_bundle_gate(tiny_bundle, [index])


def test_fitted_gate_travels_with_the_bundle_and_judges(
    bundle: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "CLOSE_UPS", 20)
    monkeypatch.setattr(fitting, "PAINTED", 20)
    assert load_model(bundle).segment(np.zeros((9, 9, 3), np.uint8)).verdict is None
    before = load_bundle(bundle).card
    other = index.parent / "other" / "index.csv"  # of the same name: both count
    other.parent.mkdir()
    write_index([replace(row, masks=()) for row in read_index(index)], other)
    with pytest.raises(DataError, match="no image of split 'train' has a mask"):
        fitting.fit_bundle_gate(bundle, [other])
    bare = [replace(row, masks=()) if i < 12 else row for i, row in enumerate(read_index(index))]
    write_index(bare, other)
    fitting.fit_bundle_gate(bundle, [index, other])
    gate = load_model(bundle).gate
    assert gate is not None
    assert gate.fitted["images"] == {f"{index.parent.name}/index": 40, "other/index": 40}
    said = list[str]()
    monkeypatch.setattr(fitting, "CLOSE_UPS", 400)  # more than there are: those that are made are said
    card = fitting.fit_bundle_gate(bundle, [index], report=said.append)
    assert "20 close-ups" in said
    assert card.variants["fp32"].sha256 != before.variants["fp32"].sha256
    assert load_bundle(bundle).verify() == {"fp32": "ok"}
    model = load_model(bundle)
    known = [synthesize(i, (SIDE, SIDE))[0] for i in range(12)]
    noise = [np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8) for i in range(4)]
    results = model.segment_batch([*known, *noise])
    levels = [result.verdict.level for result in results if result.verdict]
    assert levels[:12].count("reject") <= 1 and levels[12:] == ["reject"] * 4
    assert any("not a picture of a skin lesion" in reason for reason in results[-1].verdict.reasons)
    turned = model.segment(known[0], tta=True).verdict
    assert turned is not None and turned.level == levels[0]
    with pytest.raises(DataError, match=r"train.*--ratios"):
        write_index([], index.with_name("empty.csv"))
        fitting.fit_bundle_gate(bundle, [index.with_name("empty.csv")])


def test_close_ups_show_the_lesion_small_and_leave_out_one_that_is_cut_off() -> None:
    image, mask, _ = synthesize(5, (128, 128))
    for seed in range(6):
        found = close_up(np.random.default_rng(seed), image, mask)
        assert found.dtype == np.uint8 and found.shape[:2] in SHAPES
    cut = np.zeros((128, 128), np.bool_)
    cut[:, :40] = True
    nothing = np.zeros_like(cut)
    rngs = [np.random.default_rng(3) for _ in range(2)]
    assert np.array_equal(close_up(rngs[0], image, cut), close_up(rngs[1], image, nothing))
