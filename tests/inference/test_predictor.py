"""The main job on drawn images, with a small real network."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import dermseg
from dermseg.errors import ImageError, ModelError, UsageError
from dermseg.inference.predictor import Model, load_model
from dermseg.inference.runtimes import obstacles


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return load_model(tiny_bundle, threads=1)


def draw(
    height: int, width: int, *discs: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Light skin with dark discs (x, y, radius), and their mask."""
    mask = np.zeros((height, width), np.uint8)
    for x, y, radius in discs:
        cv2.circle(mask, (x, y), radius, 1, cv2.FILLED)
    image = np.full((height, width, 3), (226, 180, 150), np.uint8)
    image[mask > 0] = (70, 45, 40)
    return image, mask > 0


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("size", [(300, 400), (1500, 1200), (40, 64)])
def test_a_dark_disc_is_found_at_the_images_own_size(model: Model, size: tuple[int, int]) -> None:
    height, width = size
    radius = height // 4
    image, truth = draw(height, width, (width // 2, height // 3, radius))
    result = model.segment(image)
    assert result.status == "ok" and result.mask.shape == size and result.mask.dtype == np.bool_
    assert dice(result.mask, truth) > 0.95
    assert result.confidence > 0.6
    assert result.area_px == result.mask.sum()
    assert result.area_fraction == pytest.approx(truth.mean(), rel=0.08)
    assert result.centroid == pytest.approx((width // 2, height // 3), abs=height / 60)
    x, y, w, h = result.bbox or (0, 0, 0, 0)
    rows, columns = np.flatnonzero(result.mask.any(1)), np.flatnonzero(result.mask.any(0))
    assert (x, y, w, h) == (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert not result.touches_border and result.labels is None and result.components_removed == 0
    assert result.probability.shape == size and result.probability.dtype == np.float32
    assert np.array_equal(result.probability >= result.threshold, result.mask)


def test_largest_by_default_and_all_on_request(model: Model) -> None:
    image, truth = draw(400, 400, (120, 120, 80), (300, 320, 40))
    largest = model.segment(image)
    assert largest.components_removed == 1 and not largest.mask[320, 300]
    every = model.segment(image, lesions="all")
    assert every.labels is not None and every.components_removed == 0
    assert every.labels[120, 120] == 1 and every.labels[320, 300] == 2 and every.labels.max() == 2
    assert np.array_equal(every.labels > 0, every.mask) and dice(every.mask, truth) > 0.95
    assert np.array_equal(every.labels == 1, largest.mask)


def test_clear_skin_has_no_lesion(model: Model) -> None:
    result = model.segment(draw(200, 300)[0], lesions="all")
    assert (result.status, result.confidence, result.bbox, result.centroid) == ("no_lesion", 0.0, None, None)
    assert not result.mask.any() and result.labels is not None and not result.labels.any()


def test_a_lesion_that_leaves_the_image_touches_its_border(model: Model) -> None:
    assert model.segment(draw(200, 200, (10, 100, 60))[0]).touches_border
    everywhere = model.segment(np.full((200, 200, 3), 30, np.uint8))
    assert everywhere.mask.all() and everywhere.confidence < 0.6


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (2500, 2), (3, 7)])
def test_tiny_and_extreme_images_work(model: Model, shape: tuple[int, int]) -> None:
    for value, found in ((20, True), (230, False)):
        result = model.segment(np.full((*shape, 3), value, np.uint8))
        assert result.mask.shape == shape and bool(result.mask.all()) is found
        assert result.probability.shape == shape


def test_a_batch_is_one_call_and_gives_what_single_images_give(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [draw(100 + 40 * i, 160, (80, 50 + 10 * i, 30 + 3 * i))[0] for i in range(4)]
    shapes = []
    run = model.session.with_features
    with monkeypatch.context() as patch:
        patch.setattr(model.session, "with_features", lambda batch: shapes.append(batch.shape) or run(batch))
        batch = model.segment_batch(images)
    assert shapes == [(4, 3, 64, 64)]
    for image, result in zip(images, batch, strict=True):
        assert np.array_equal(result.mask, model.segment(image).mask)
    assert model.segment_batch([]) == []
    for one in ("photo.jpg", b"photo", Path("photo.jpg"), images[0]):
        with pytest.raises(UsageError, match=r"takes a list of images, got one \(segment\(image\)"):
            model.segment_batch(one)  # type: ignore[arg-type]


def test_threads_share_a_model(model: Model) -> None:
    images = [draw(200, 200, (60 + 4 * i, 100, 30 + i))[0] for i in range(16)]
    expected = [model.segment(image).mask for image in images]
    with ThreadPoolExecutor(8) as pool:
        masks = list(pool.map(lambda image: model.segment(image).mask, images))
    assert all(np.array_equal(a, b) for a, b in zip(masks, expected, strict=True))


def test_augmentation_at_test_time_agrees_on_a_symmetric_network(model: Model) -> None:
    image, truth = draw(256, 320, (150, 120, 70))
    result = model.segment(image, tta=True)
    assert np.allclose(result.network_probability, model.segment(image).network_probability, atol=1e-5)
    assert dice(result.mask, truth) > 0.95


def test_threshold_moves_the_outline(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = draw(300, 300, (150, 150, 80))
    image = cv2.GaussianBlur(image, (0, 0), 15)
    small, large = (model.segment(image, threshold=t) for t in (0.9, 0.1))
    assert not (small.mask & ~large.mask).any() and small.area_px < large.area_px
    monkeypatch.setattr(Model, "look", None)  # what is wrong is refused before the network runs
    for wrong in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="threshold"):
            model.segment(image, threshold=wrong)
    with pytest.raises(UsageError, match="biggest"):
        model.segment(image, lesions="biggest")  # type: ignore[arg-type]


def test_files_and_bytes_give_what_arrays_give(model: Model, tmp_path: Path) -> None:
    image, _ = draw(240, 320, (150, 110, 60))
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    expected = model.segment(image).mask
    for source in (path, str(path), path.read_bytes()):
        assert np.array_equal(model.segment(source).mask, expected)
    jpeg = cv2.imencode(".jpg", cv2.resize(image, (2000, 1500))[..., ::-1])[1].tobytes()
    reduced = model.segment(jpeg)  # decoded at an eighth, answered at full size
    assert reduced.mask.shape == (1500, 2000) and reduced.bbox is not None
    with pytest.raises(ImageError):
        model.segment(b"GIF89a")


def test_a_model_travels_to_another_process_as_its_bundle(model: Model) -> None:
    copy = pickle.loads(pickle.dumps(model))
    image, _ = draw(100, 100, (50, 50, 30))
    assert np.array_equal(copy.segment(image).mask, model.segment(image).mask)
    assert copy.session.threads == 1 and copy.sha256 == model.sha256


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a matter of Unix")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_forked_process_answers_and_ends(tiny_bundle: Path, runtime: str) -> None:
    """As the workers of a web server that loads the model first: they never ended, or hung in a call."""
    if obstacles()[runtime]:
        pytest.skip(f"{runtime} is not installed")
    code = (
        "import os, sys, numpy as np, dermseg\n"
        "from dermseg.errors import UsageError\n"
        f"model = dermseg.load_model({str(tiny_bundle)!r}, threads=2, runtime={runtime!r})\n"
        "image = np.full((64, 64, 3), 30, np.uint8)\n"
        "assert model.segment(image).mask.all()\n"
        "if child := os.fork():\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "try:\n"
        "    print(model.segment(image).area_px)\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0
    assert said.strip() == "4096" if runtime == "onnxruntime" else "in a forked process" in said


def test_a_model_of_a_relative_path_travels_to_another_working_folder(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_bundle.parent)
    model = load_model(tiny_bundle.name)
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(model)).sha256 == model.sha256


def test_a_card_that_names_another_tensor_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    card = json.loads((tiny_bundle / "card.json").read_text())
    card["preprocessing"]["input_name"] = "x"
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "model.onnx").write_bytes((tiny_bundle / "model.onnx").read_bytes())
    with pytest.raises(ModelError, match="no input 'x'"):
        load_model(tmp_path)


def test_the_public_name_is_lazy() -> None:
    assert dermseg.load_model is load_model
