from __future__ import annotations

import numpy as np
import pytest

from dermseg.export import paced
from dermseg.export.tune import Labelled, tune
from dermseg.images.packed import PackedMask


def item(rng: np.random.Generator, best: float, speck: bool, hole: bool) -> Labelled:
    """A square whose probability crosses ``best`` at the reference's edge, with faults to be cleaned."""
    reference = np.zeros((64, 64), bool)
    reference[16:48, 16:48] = True
    y, x = np.mgrid[:64, :64] - 31.5
    depth = 16 - np.maximum(abs(x), abs(y))  # > 0 inside
    probability = np.clip(best + 0.02 * depth, 0, 1).astype(np.float32)
    if speck:
        probability[2:8, 2:8] = 0.99
    if hole:
        probability[28:36, 28:36] = 0.01
    return Labelled("squares", probability, PackedMask.of(reference))


def test_the_threshold_is_where_the_edges_are() -> None:
    rng = np.random.default_rng(0)
    post, trials = tune([item(rng, 0.4, False, False) for _ in range(3)])
    assert post.threshold == 0.4
    assert not post.fill_holes
    assert post.smooth_radius == 0
    assert {t["step"] for t in trials} == {"threshold", "keep_largest", "fill_holes", "smooth"}


def test_where_all_thresholds_do_alike_it_is_the_middle() -> None:
    reference = np.zeros((32, 32), bool)
    reference[8:24, 8:24] = True
    sure = np.where(reference, np.float32(0.98), np.float32(0.01))
    packed = PackedMask.of(reference)
    assert tune([Labelled("sure", sure, packed)])[0].threshold == 0.5
    assert tune([Labelled("nothing found", np.zeros_like(sure), packed)])[0].threshold == 0.5


def test_a_step_is_taken_where_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(paced, "_LINE_EVERY_S", 0.0)
    said: list[str] = []
    post, trials = tune([item(rng, 0.5, True, True) for _ in range(3)], report=said.append)
    assert said[0] == "thresholds: 1 of 9" and said[-1] == "post-processing: 3 of 4"
    assert post.fill_holes
    assert post.keep_largest
    best = max(t["objective"] for t in trials)
    assert best > next(t["objective"] for t in trials if t["step"] == "threshold" and t["threshold"] == 0.5)


def test_masks_are_held_packed() -> None:
    reference = np.zeros((1001, 1503), bool)  # no multiple of eight
    reference[300:700, 400:901] = True
    packed = PackedMask.of(reference)
    assert np.array_equal(packed.unpack(), reference) and packed.unpack().dtype == np.bool_
    assert len(packed.data) < reference.size / 100
