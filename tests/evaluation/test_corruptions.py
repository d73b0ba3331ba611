"""The corruption suite, and what it says of a model that looks for darkness."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from dermseg.data.index import IndexRow
from dermseg.errors import UsageError
from dermseg.evaluation import robustness
from dermseg.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.evaluate import evaluate_rows
from dermseg.evaluation.metrics import dice
from dermseg.evaluation.robustness import evaluate_robustness
from dermseg.images.load import LoadedImage
from dermseg.inference.predictor import Model, load_model

MOVING = ("rotation", "scale")


def photograph() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:120, :160]
    lesion = np.hypot((y - 55) / 22, (x - 90) / 34) < 1
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 12, (120, 160, 3)), (0, 0), 1.0)
    image = np.where(lesion[..., None], (90, 50, 40), (210, 170, 150)) + grain
    return np.clip(image, 0, 255).astype(np.uint8), lesion


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_again_and_worse_with_severity(name: str) -> None:
    image, lesion = photograph()
    before = image.copy()
    away = []
    for severity in SEVERITIES:
        spoilt, moved = corrupt(image, lesion, name, severity, image_id="a")
        again, _ = corrupt(image, lesion, name, severity, image_id="a")
        assert (spoilt.dtype, spoilt.shape, moved.shape) == (np.uint8, image.shape, lesion.shape)
        assert np.array_equal(spoilt, again)
        assert name in MOVING or np.array_equal(moved, lesion)
        away.append(float(np.abs(spoilt.astype(int) - image).mean()))
    assert away[0] > 0 and away[-1] > away[0]
    assert all(b >= 0.95 * a for a, b in pairwise(away)), away
    assert np.array_equal(image, before)
    chance = {corrupt(image, lesion, name, 5, image_id=i)[0].tobytes() for i in "abcdef"}
    assert len(chance) > 1 or name in ("blur", "jpeg", "contrast", "scale")


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_the_reference_moves_with_the_picture(name: str, severity: int) -> None:
    _, lesion = photograph()
    drawn = np.repeat(lesion[..., None] * np.uint8(255), 3, axis=2)
    spoilt, moved = corrupt(drawn, lesion, name, severity, image_id="a")
    assert dice(count_pixels(spoilt[..., 0] >= 128, moved)) > 0.99
    assert moved.any() and not np.array_equal(moved, lesion)


def test_refuses_what_it_does_not_know() -> None:
    image, lesion = photograph()
    with pytest.raises(UsageError, match="no corruption 'fog'"):
        corrupt(image, lesion, "fog", 1, image_id="a")
    with pytest.raises(UsageError, match="severity 6"):
        corrupt(image, lesion, "blur", 6, image_id="a")


@dataclass
class Blind:
    """A model that finds nothing, and decodes JPEGs for itself as its network wants them."""

    min_side: int

    def segment(self, image: LoadedImage, **_: Any) -> Any:
        return SimpleNamespace(mask=np.zeros((image.info.height, image.info.width), np.bool_))

    def segment_batch(self, images: Sequence[LoadedImage], **_: Any) -> list[Any]:
        return [self.segment(image) for image in images]


def test_every_model_sees_the_same_spoilt_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph at full size was decoded to the size of the network, and spoilt there."""
    image, lesion = photograph()
    for name, pixels in (("a.jpg", image), ("a_m.png", lesion.astype(np.uint8) * 255)):
        assert cv2.imwrite(str(tmp_path / name), cv2.resize(pixels, (1400, 1100)))
    row = IndexRow("a", "a.jpg", ("a_m.png",), "d", root=tmp_path)
    seen: dict[int, set[tuple[tuple[int, ...], bytes]]] = {}
    for side in (64, 256, 384, 1024):

        def note(pixels: Any, reference: Any, *_: Any, into: int = side, **__: Any) -> Any:
            seen.setdefault(into, set()).add((pixels.shape, pixels.tobytes()))
            return pixels, reference

        monkeypatch.setattr(robustness, "corrupt", note)
        evaluate_robustness(cast("Model", Blind(side)), [row])
    assert seen[64] == seen[256] == seen[384] == seen[1024]
    assert [shape for shape, _ in seen[64]] == [(550, 700, 3)]


def test_robustness_of_a_model(tiny_bundle: Path, tmp_path: Path) -> None:
    image, lesion = photograph()
    rows = []
    for name in ("a", "b"):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        assert cv2.imwrite(str(tmp_path / f"{name}_m.png"), lesion.astype(np.uint8) * 255)
        rows.append(IndexRow(name, f"{name}.png", (f"{name}_m.png",), "d", group=name, root=tmp_path))
    rows.append(IndexRow("gone", "gone.png", ("a_m.png",), "d", root=tmp_path))
    model = load_model(tiny_bundle, threads=1)
    found = evaluate_robustness(model, rows)
    assert [failure.image_id for failure in found.failures] == ["gone"]
    assert found.clean.tolist() == evaluate_rows(model, rows[:2]).values("dice").tolist()
    summary = found.summary()
    mean = float(found.spoilt.mean())
    assert summary["mean_corruption_error"]["mean"] == pytest.approx(1 - mean)  # type: ignore[index]
    assert summary["loss"]["mean"] == pytest.approx(float(found.clean.mean()) - mean)  # type: ignore[index]
    curves = {c["name"]: c["severities"] for c in summary["corruptions"]}  # type: ignore[attr-defined]
    assert list(curves) == list(CORRUPTIONS)
    # A model that calls dark things lesion stumbles over a dark frame, not over a mild blur.
    assert curves["vignette"][4] < 0.7 < 0.9 < curves["blur"][0]
    found.write_csv(tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == 2 * (1 + len(CORRUPTIONS) * 5)
    assert float(written[0]["dice"]) == found.clean[0]
