"""What every runtime promises: the same logits, for any batch and size, from any number of threads."""

from __future__ import annotations

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dermseg.errors import ModelError, UsageError
from dermseg.inference.bundle import Bundle, load_bundle
from dermseg.inference.card import ModelCard, Postprocessing, Preprocessing, Variant
from dermseg.inference.predictor import load_model
from dermseg.inference.runtimes import RUNTIMES, obstacles, open_session

torch = pytest.importorskip("torch", reason="the reference network is made in torch: dermseg[train]")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A U-Net with random weights and batch norms, whose card names an architecture of the package."""
    from dermseg.export.onnx import store_as_bytes, store_as_fp16, to_onnx
    from dermseg.models import build_model, count_parameters

    torch.manual_seed(0)
    options = {"widths": (4, 8, 12)}
    model = build_model("unet", **options).train()
    with torch.no_grad():
        model(torch.randn(4, 3, 32, 32) + 1)  # batch norms that are not the identity
    graph = to_onnx(model, 32)
    folder = tmp_path_factory.mktemp("unet")
    eight_bits = store_as_bytes(graph, min_elements=64)
    files = {"fp32": graph, "fp16": store_as_fp16(graph), "int8-weights": eight_bits}
    variants = {}
    for name, data in files.items():
        (folder / f"{name}.onnx").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        variants[name] = Variant(file=f"{name}.onnx", sha256=digest, bytes=len(data))
    card = ModelCard(
        name="random",
        version="1",
        created="2026-11-21",
        architecture="unet",
        architecture_options=options,
        parameters=count_parameters(model),
        licence="Apache-2.0",
        preprocessing=Preprocessing(height=32, width=48),
        postprocessing=Postprocessing(),
        variants=variants,
        default_variant="fp16",
    )
    (folder / "card.json").write_text(card.to_json())
    return load_bundle(folder)


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if obstacle := obstacles()[name]:
        pytest.skip(f"runtime {name} is not installed here: {obstacle}")
    return name


@pytest.mark.parametrize("variant", ["fp32", "fp16", "int8-weights"])
def test_every_runtime_gives_the_same_logits(bundle: Bundle, runtime: str, variant: str) -> None:
    session = open_session(bundle, variant, runtime, 1)
    reference = open_session(bundle, variant, "onnxruntime", 1)
    assert (session.runtime, session.threads) == (runtime, 1)
    rng = np.random.default_rng(0)
    for shape in ((1, 3, 32, 48), (5, 3, 32, 48), (2, 3, 64, 32)):
        images = rng.standard_normal(shape, np.float32)
        kept = images.copy()
        logits = session(images)
        assert logits.shape == (shape[0], 1, *shape[2:])
        assert logits.dtype == np.float32
        assert np.array_equal(images, kept)
        expected = reference(images)
        # bfloat16, where a processor has it, keeps 8 bits
        assert np.abs(logits - expected).max() <= 0.02 * max(1.0, float(np.abs(expected).max()))
        flipped = session(np.ascontiguousarray(images[::-1])[::-1])  # not contiguous
        assert np.allclose(flipped, logits, atol=1e-5)


def test_threads_share_a_session(bundle: Bundle, runtime: str) -> None:
    session = open_session(bundle, "fp32", runtime, 1)
    batches = [np.random.default_rng(i).standard_normal((1, 3, 32, 48), np.float32) for i in range(24)]
    one_by_one = [session(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(session, batches))
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(one_by_one, together, strict=True))


def test_what_is_wrong_is_said_in_one_way(bundle: Bundle, runtime: str) -> None:
    with pytest.raises(UsageError, match="threads"):
        open_session(bundle, "fp32", runtime, 0)
    session = open_session(bundle, "fp32", runtime, 1)
    with pytest.raises(ModelError, match=r"fails on input \(1, 4, 32, 32\)"):
        session(np.zeros((1, 4, 32, 32), np.float32))


def test_a_model_keeps_its_runtime_in_another_process(bundle: Bundle, runtime: str) -> None:
    model = load_model(bundle.path, runtime=runtime, threads=1)
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    copy = pickle.loads(pickle.dumps(model))
    assert (copy.session.runtime, copy.session.threads) == (runtime, 1)
    assert np.array_equal(copy.segment(image).mask, model.segment(image).mask)


def test_a_file_that_is_no_model_is_refused(bundle: Bundle, runtime: str, tmp_path: Path) -> None:
    data = b"no model"
    (tmp_path / "a.onnx").write_bytes(data)
    variant = Variant(file="a.onnx", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    card = bundle.card.model_copy(update={"variants": {"fp32": variant}, "default_variant": "fp32"})
    with pytest.raises(ModelError):
        open_session(Bundle(tmp_path, card), "fp32", runtime, 1)
