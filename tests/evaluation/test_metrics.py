"""Identities that hold for every pair of masks, and the empty-mask rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from dermseg.errors import MaskError
from dermseg.evaluation.counts import Counts, count_pixels
from dermseg.evaluation.metrics import METRICS, dice, jaccard, pooled_metrics, threshold_jaccard

Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@st.composite
def mask_pairs(draw: st.DrawFn) -> Masks:
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=9))
    return draw(arrays(np.bool_, shape)), draw(arrays(np.bool_, shape))


@given(mask_pairs())
def test_identities(masks: Masks) -> None:
    counts = count_pixels(*masks)
    j, d = jaccard(counts), dice(counts)
    assert d == pytest.approx(2 * j / (1 + j), abs=1e-15)
    assert j <= d
    assert all(0.0 <= metric(counts) <= 1.0 for metric in METRICS.values())
    assert threshold_jaccard(counts) == (j if j >= 0.65 else 0.0)
    assert counts.total == masks[0].size
    assert (counts.predicted, counts.reference) == (masks[0].sum(), masks[1].sum())


@given(mask_pairs())
def test_exchanging_the_masks(masks: Masks) -> None:
    a, b = count_pixels(*masks), count_pixels(*masks[::-1])
    assert (b.tp, b.fp, b.fn, b.tn) == (a.tp, a.fn, a.fp, a.tn)
    for name in ("dice", "jaccard", "threshold_jaccard", "accuracy"):
        assert METRICS[name](a) == METRICS[name](b)
    assert METRICS["sensitivity"](a) == METRICS["precision"](b)


@given(mask_pairs(), st.randoms(use_true_random=False))
def test_only_overlap_counts_not_place(masks: Masks, random: object) -> None:
    counts = count_pixels(*masks)
    order = list(range(masks[0].size))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = [mask.ravel()[order].reshape(mask.shape) for mask in masks]
    assert count_pixels(*shuffled) == counts
    assert count_pixels(masks[0].T, masks[1].T) == counts
    assert count_pixels(~masks[0], ~masks[1]) == counts.inverted()


@given(st.lists(mask_pairs(), min_size=1, max_size=4))
def test_pooling_is_one_large_image(pairs: list[Masks]) -> None:
    total = sum((count_pixels(*pair) for pair in pairs), Counts(0, 0, 0, 0))
    flat = [np.concatenate([pair[i].ravel() for pair in pairs])[None] for i in (0, 1)]
    assert count_pixels(flat[0], flat[1]) == total


def test_empty_mask_rule() -> None:
    empty, full = np.zeros((3, 4), np.bool_), np.ones((3, 4), np.bool_)
    both_empty = {name: metric(count_pixels(empty, empty)) for name, metric in METRICS.items()}
    assert set(both_empty.values()) == {1.0}
    missed = {name: metric(count_pixels(empty, full)) for name, metric in METRICS.items()}
    assert missed == {
        "dice": 0.0,
        "jaccard": 0.0,
        "threshold_jaccard": 0.0,
        "sensitivity": 0.0,
        "specificity": 1.0,
        "accuracy": 0.0,
        "precision": 1.0,
    }
    invented = {name: metric(count_pixels(full, empty)) for name, metric in METRICS.items()}
    assert (invented["sensitivity"], invented["precision"], invented["dice"]) == (1.0, 0.0, 0.0)


def test_threshold_is_inclusive() -> None:
    assert threshold_jaccard(Counts(65, 20, 15, 0)) == 0.65
    assert threshold_jaccard(Counts(64, 20, 15, 1)) == 0.0


def test_pooled_by_hand() -> None:
    pooled = pooled_metrics(Counts(tp=6, fp=2, fn=4, tn=88))
    assert pooled["lesion"] == {"iou": 0.5, "dice": 12 / 18, "precision": 0.75, "recall": 0.6}
    background = {"iou": 88 / 94, "dice": 176 / 182, "precision": 88 / 92, "recall": 88 / 90}
    assert pooled["background"] == background
    assert pooled["mean_iou"] == pytest.approx((0.5 + 88 / 94) / 2)
    assert pooled["mean_pixel_accuracy"] == pytest.approx((0.6 + 88 / 90) / 2)
    assert pooled["pixel_accuracy"] == 0.94


@pytest.mark.parametrize(
    ("prediction", "reference", "words"),
    [
        (np.zeros((2, 3), bool), np.zeros((3, 2), bool), "3x2 pixels, the reference 2x3"),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 3), bool), "uint8"),
        (np.zeros((2, 3, 1), bool), np.zeros((2, 3, 1), bool), "not a bool"),
        (np.zeros((0, 3), bool), np.zeros((0, 3), bool), "no pixels"),
    ],
)
def test_refuses_what_is_not_a_pair_of_masks(prediction: object, reference: object, words: str) -> None:
    with pytest.raises(MaskError, match=words):
        count_pixels(prediction, reference)  # type: ignore[arg-type]
