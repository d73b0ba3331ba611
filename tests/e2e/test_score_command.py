"""A researcher scores predicted masks and reads the figures, or learns why there are none."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest


def score(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "score", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three images: one perfect, one half right (Jaccard 0.5), one whose prediction has another size."""
    predictions, references = tmp_path / "pred", tmp_path / "gt"
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:50] = 255
    half = mask.copy()
    half[20:] = 0
    for name, prediction in (("a", mask), ("b", half), ("c", mask[:, :50])):
        write(predictions / f"{name}.png", prediction)
        write(references / f"{name}_segmentation.png", mask)
    return predictions, references


def test_figures_table_and_reason(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = score(*folders, "--json", "-o", tmp_path / "out")
    assert done.returncode == 1, done.stderr  # one image could not be scored
    printed = json.loads(done.stdout)
    assert printed["n"] == 2
    assert printed["jaccard"]["mean"] == 0.75
    assert printed["threshold_jaccard"]["mean"] == 0.5
    assert printed["failed_below_065"] == 0.5
    assert printed["pooled"]["confusion"] == {"tp": 1200, "fp": 0, "fn": 400, "tn": 3200}
    assert [f["image_id"] for f in printed["failures"]] == ["c"]
    assert "50x40 pixels, the reference 60x40" in printed["failures"][0]["reason"]
    assert "failed: c: " in done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == printed
    rows = table(tmp_path / "out" / "per_image.csv")
    assert [(row["image_id"], row["status"], row["jaccard"]) for row in rows] == [
        ("a", "ok", "1.0"),
        ("b", "ok", "0.5"),
        ("c", "failed", ""),
    ]


def test_none_scored_is_work_that_failed_not_wrong_usage(tmp_path: Path) -> None:
    for folder in ("found", "reference"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"no picture")
    done = score(tmp_path / "found", tmp_path / "reference", "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no image could be scored (1 failed, first: a: " in done.stderr and not any(
        (tmp_path / "out").iterdir()
    )


def test_for_people(folders: tuple[Path, Path]) -> None:
    done = score(*folders)
    assert done.stdout == ""
    assert "2 images, 1 could not be scored" in done.stderr
    assert "pooled over the pixels of all images" in done.stderr


def test_output_folders_of_segment_stand_for_their_masks(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Two models' results against each other: their overlays are no masks."""
    for folder, name in zip(folders, ("one", "two"), strict=True):
        (tmp_path / name).mkdir()
        folder.rename(tmp_path / name / "masks")
        write(tmp_path / name / "overlays/a.jpg", np.full((40, 60, 3), 120, np.uint8))
        (tmp_path / name / "journal.jsonl").write_text("{}")
    done = score(tmp_path / "one", tmp_path / "two", "--json")
    assert (done.returncode, json.loads(done.stdout)["n"]) == (1, 2), done.stderr


def test_an_evaluation_is_not_overwritten_by_accident(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert score(*folders, "-o", tmp_path / "out").returncode == 1
    again = score(*folders, "-o", tmp_path / "out")
    assert (again.returncode, "--overwrite" in again.stderr) == (2, True)
    for name in ("examples.png", "robustness.csv"):  # of a model that was evaluated there before
        (tmp_path / "out" / name).touch()
    assert score(*folders, "-o", tmp_path / "out", "--overwrite").returncode == 1
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == {"report.html", "per_image.csv", "metrics.json"}


def test_missing_and_extra_predictions(folders: tuple[Path, Path]) -> None:
    predictions, references = folders
    (predictions / "c.png").rename(predictions / "z.png")
    refused = score(predictions, references, "--json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "1 of 3 references have no prediction: c" in refused.stderr
    counted = score(predictions, references, "--json", "--allow-missing")
    assert counted.returncode == 0, counted.stderr
    printed = json.loads(counted.stdout)
    assert (printed["n"], printed["missing"], printed["extra"]) == (3, ["c"], ["z.png"])
    assert printed["jaccard"]["mean"] == 0.5


@pytest.mark.parametrize("words", [("nowhere", "nowhere"), ("only-one",)])
def test_wrong_use(words: tuple[str, ...]) -> None:
    done = score(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
