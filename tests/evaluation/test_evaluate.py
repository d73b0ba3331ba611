"""Evaluation of masks in memory and of any function, and the choice of rows and examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermseg.data.index import IndexRow
from dermseg.errors import DataError
from dermseg.evaluation.counts import Counts
from dermseg.evaluation.evaluate import _batches, evaluate_function, evaluate_pairs, select_split
from dermseg.evaluation.figure import (
    PREDICTION_RGB,
    REFERENCE_RGB,
    Panel,
    choose_examples,
    draw_gallery,
    draw_panel,
    draw_panels,
)
from dermseg.evaluation.table import Evaluation, ImageScore
from dermseg.images.masks import load_mask


def square(size: int, start: int, stop: int) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    mask[start:stop, start:stop] = True
    return mask


def test_pairs_keep_what_does_not_fit() -> None:
    pairs = [("a", square(20, 2, 10), square(20, 2, 10)), ("b", square(10, 2, 5), square(20, 2, 5))]
    evaluation = evaluate_pairs(iter(pairs))
    assert evaluation.n == 1
    assert evaluation.scores[0].facts["reference_area_fraction"] == 64 / 400
    assert evaluation.failures[0].image_id == "b"
    assert "10x10" in evaluation.failures[0].reason


def test_function_on_its_own_grid() -> None:
    """A map at a quarter of the size, as a network gives it, is brought to the reference's size."""
    reference = square(64, 16, 48)
    image = np.where(reference[..., None], 60, 200).astype(np.uint8).repeat(3, axis=2)

    def quarter(pixels: np.ndarray) -> np.ndarray:
        return 1 - pixels[2::4, 2::4, 0].astype(np.float32) / 255

    items = [("a", image, reference)]
    assert evaluate_function(quarter, items, threshold=0.49).values("dice")[0] > 0.97
    assert evaluate_function(quarter, items, threshold=0.9).values("dice")[0] == 0.0
    everything = evaluate_function(quarter, items, postprocess=lambda p: np.ones_like(p, np.bool_))
    assert everything.values("sensitivity")[0] == 1.0


def test_select_split() -> None:
    rows = [
        IndexRow("a", "a.png", ("a_m.png",), split="test"),
        IndexRow("b", "b.png", (), split="test"),
        IndexRow("c", "c.png", ("c_m.png",), split="train"),
        IndexRow("d", "d.png", ("d_m.png",), split="excluded"),
        IndexRow("e", "e.png", (), split="calib"),
    ]
    assert select_split(rows, "test") == ([rows[0]], 1)
    assert select_split(rows, "all") == ([rows[0], rows[2]], 2)
    with pytest.raises(DataError, match=r"no image has split 'tset' \(splits in this index: calib"):
        select_split(rows, "tset")
    with pytest.raises(DataError, match="no image of split"):
        select_split(rows, "calib")


def test_few_large_photographs_are_held_at_once() -> None:
    """Eight of 24 megapixels took 1.3 GB."""
    sizes = [(0, 0)] * 9 + [(6000, 4000)] * 3 + [(9000, 9000), (640, 480)]
    rows = [IndexRow(str(i), "x.jpg", width=w, height=h) for i, (w, h) in enumerate(sizes)]
    batches = list(_batches(rows, 48_000_000))
    assert [len(batch) for batch in batches] == [8, 3, 1, 1, 1]
    assert [row for batch in batches for row in batch] == rows


@pytest.mark.parametrize("n", [1, 2, 3, 5, 11, 12, 40])
def test_examples_are_distinct_and_ordered(n: int) -> None:
    scores = [ImageScore(f"{i:03}", Counts(i, 1, 1, 5)) for i in range(n)]
    groups = choose_examples(Evaluation(scores))
    names = [score.image_id for _, group in groups for score in group]
    assert len(names) == len(set(names))
    assert names[0] == f"{n - 1:03}"
    if n >= 3:
        assert [title for title, _ in groups] == ["Best", "Median", "Worst"]
        assert groups[2][1][0].image_id == "000"
        assert f"{(n - 1) // 2:03}" in {s.image_id for s in groups[1][1]}


def test_panel_shows_both_outlines_and_keeps_the_aspect() -> None:
    image = np.full((100, 200, 3), 180, np.uint8)
    prediction, reference = np.zeros((2, 100, 200), np.bool_)
    prediction[20:60, 20:60], reference[30:80, 120:180] = True, True
    drawn = draw_panel(Panel(image, prediction, reference, "a", ""), side=160)
    assert drawn.shape == (160, 160, 3)
    assert (drawn[0] == 235).all() and (drawn[80, 80] == 180).all()
    yellow, cyan = (np.argwhere((drawn == colour).all(axis=2)) for colour in (PREDICTION_RGB, REFERENCE_RGB))
    assert yellow[:, 1].max() < 60 < 90 < cyan[:, 1].min()


def test_photographs_of_panels_are_read_reduced(tmp_path: Path) -> None:
    """They were held whole, twelve at once, to be drawn 320 pixels wide."""
    Image.new("RGB", (2000, 1400), (200, 150, 120)).save(tmp_path / "a.jpg")
    Image.fromarray(np.pad(np.full((700, 1000), 255, np.uint8), ((0, 700), (0, 1000)))).save(
        tmp_path / "m.png"
    )
    row = IndexRow(image_id="a", image="a.jpg", masks=("m.png",), dataset="d", root=tmp_path)
    scores = [ImageScore("a", Counts(1, 1, 1, 1), "d")]
    rows = [row, replace(row, image_id="b"), replace(row, dataset="e", image_id="b")]
    scores.append(ImageScore("b", Counts(1, 1, 1, 1), "e"))
    panel, other = draw_panels(lambda source: load_mask(tmp_path / "m.png"), rows, scores)
    assert [panel.title, other.title] == ["a", "e/b"], "names are unique within a data set only"
    assert panel.image.shape == (350, 500, 3)
    yellow = np.argwhere((draw_panel(panel) == PREDICTION_RGB).all(axis=2))
    assert abs(yellow.max(axis=0) - 160).max() <= 3, "the outline lies where it was"


def test_gallery_of_uneven_rows() -> None:
    panel = Panel(
        np.zeros((30, 20, 3), np.uint8), square(30, 3, 9)[:, :20], square(30, 2, 9)[:, :20], "é", "x"
    )
    assert draw_gallery([("Best", [panel, panel]), ("Worst", [panel])]).shape[2] == 3
