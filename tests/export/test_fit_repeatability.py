"""How well a bundle's measurements repeat, fitted on photographs of the same lesions."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.data.index import IndexRow, read_index, write_index
from dermseg.errors import DataError
from dermseg.export.fit_repeatability import find_pairs, fit_bundle_repeatability
from dermseg.inference.bundle import load_bundle
from dermseg.inference.predictor import load_model
from dermseg.uncertainty.repeatability import load_repeatability

SIDE = 240


def draw(path: Path, skin: int, radius: float) -> None:
    rng = np.random.default_rng(skin)
    spots = sum(cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), s) * s for s in (1.2, 2.5, 5.0))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    grey = np.where(np.hypot(x, y) < radius, 60 + 10 * spots, 200 + 10 * spots)
    cv2.imwrite(str(path), np.clip(grey, 0, 255).astype(np.uint8))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Ten lesions of two photographs on calib, one on train, one with a single photograph."""
    rows = []

    def add(name: str, lesion: str, split: str, skin: int, radius: float) -> None:
        draw(tmp_path / f"{name}.png", skin, radius)
        rows.append(
            IndexRow(
                image_id=name,
                image=f"{name}.png",
                masks=(),
                dataset="x",
                lesion=lesion,
                split=split,
                width=SIDE,
                height=SIDE,
                root=tmp_path,
            )
        )

    for number in range(10):
        for take in range(2):
            add(f"c{number}{take}", f"L{number}", "calib", number, 40 + take * number / 5)
    for take in range(2):
        add(f"t{take}", "T", "train", 20, 40 + 8 * take)
    add("alone", "A", "val", 21, 40)
    write_index(rows, tmp_path / "x.csv")
    return tmp_path / "x.csv"


def test_a_pair_of_each_lesion_that_the_network_has_not_seen(
    index: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    card = fit_bundle_repeatability(bundle, [index])
    known = load_repeatability(load_bundle(bundle))
    assert known is not None and card == load_bundle(bundle).card
    assert known.all.pairs == known.all.contrast_pairs == 10 and known.fitted["pairs"] == {"x": 10}
    assert known.all.contrast is not None and known.all.contrast < 2  # all have the same greys
    # the largest of ten: a radius of 41.8 after 40
    assert known.all.area == pytest.approx(2 * np.log(41.8 / 40), abs=0.03)
    # a bundle without a gate accepts nothing
    assert known.accepted.pairs == 0 and known.accepted.area is None
    assert known.others == known.all
    model = load_model(bundle)
    assert list(find_pairs(model, [])) == []


@pytest.mark.parametrize("owner", ["subject", "dataset"])
def test_lesions_of_one_name_of_two_people_are_no_pair(index: Path, tiny_bundle: Path, owner: str) -> None:
    """Two lesions differ by more than two photographs of one: the range of all changes would be too wide."""
    first, second = read_index(index)[:2]
    other = replace(second, **{owner: "another"})
    model = load_model(tiny_bundle)
    assert list(find_pairs(model, [first, second])) and not list(find_pairs(model, [first, other]))


def test_without_pairs_nothing_is_written(index: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    text = index.read_text().replace(",calib,", ",train,")
    index.write_text(text)
    with pytest.raises(DataError, match="no lesion has two photographs"):
        fit_bundle_repeatability(bundle, [index])
    assert load_repeatability(load_bundle(bundle)) is None
