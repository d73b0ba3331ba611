"""Lesions that were photographed more than once, on real photographs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
# Of HAM10000's validation split: the photographs of each lesion differ in distance by up to 1.8 times.
LESIONS = {
    "HAM_0001604": ("ISIC_0024664", "ISIC_0025458"),
    "HAM_0004696": ("ISIC_0024881", "ISIC_0026539", "ISIC_0029764"),
    "HAM_0005537": ("ISIC_0024657", "ISIC_0028643"),
}


def test_lesions_photographed_from_near_and_far(data_dir: Path, tmp_path: Path, run: Run) -> None:
    """Nobody gave millimetres; the skin says what the scale is, and that nothing has changed much."""
    archive = data_dir / "HAM10000_images.zip"
    rows = [
        f"{archive}!HAM10000_images/{image}.jpg,{lesion}"
        for lesion, images in LESIONS.items()
        for image in images
    ]
    (tmp_path / "visits.csv").write_text("image,lesion\n" + "\n".join(rows) + "\n")
    code, out, _ = run("track", tmp_path / "visits.csv")
    changes = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(changes) == 4
    assert {row["scale_from"] for row in changes} == {"skin"}
    assert min(float(row["scale"]) for row in changes) == pytest.approx(0.57, abs=0.02)
    for row in changes:
        low, high = float(row["area_change_low"]), float(row["area_change_high"])
        assert low < float(row["area_change"]) < high
        assert abs(float(row["area_change"])) < 0.15 and float(row["overlap"]) > 0.88
