"""Threshold and post-processing, chosen on validation images for what they gain.

The threshold is chosen first, on plain masks. Then each cleaning step is tried on its own, and becomes
part of the bundle only where it raises the score. Every trial is returned, so the card can show them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.metrics import dice, jaccard, threshold_jaccard
from dermseg.export.paced import counted
from dermseg.images.packed import PackedMask
from dermseg.inference.card import Postprocessing
from dermseg.inference.postprocess import clean, upsample_mask

THRESHOLDS = tuple(round(0.25 + 0.05 * i, 2) for i in range(9))
SMOOTH_RADII = (0.01, 0.02, 0.04)
_MIN_GAIN = 1e-4  # of the objective, for which a cleaning step is kept
PLAIN = Postprocessing(keep_largest=False, fill_holes=False)


@dataclass(frozen=True)
class Labelled:
    """Network probability ``float32 (h, w)`` and packed reference of one image of a data set."""

    dataset: str
    probability: NDArray[np.float32]
    reference: PackedMask


def score(items: Sequence[Labelled], post: Postprocessing) -> dict[str, float]:
    """Means over images, then over data sets (each counts the same), of Dice, Jaccard and thresholded
    Jaccard; ``objective`` is the mean of the three, so that an outright failure costs more than an edge.
    """
    by_set: dict[str, list[tuple[float, float, float]]] = {}
    for item in items:
        mask = upsample_mask(clean(item.probability, post), item.reference.shape)
        counts = count_pixels(mask, item.reference.unpack())
        by_set.setdefault(item.dataset, []).append((dice(counts), jaccard(counts), threshold_jaccard(counts)))
    means = np.mean([np.mean(values, axis=0) for values in by_set.values()], axis=0)
    names = ("dice", "jaccard", "threshold_jaccard")
    return {**dict(zip(names, map(float, means), strict=True)), "objective": float(means.mean())}


def tune(
    items: Sequence[Labelled], report: Callable[[str], None] = lambda _: None
) -> tuple[Postprocessing, list[dict[str, Any]]]:
    """The post-processing for a bundle, and every trial that led to it.

    Keeping the largest lesion is what ``dermseg segment`` promises by default, so it is always on in the
    result; its gain is measured like that of the others.
    """
    trials: list[dict[str, Any]] = []

    def attempt(step: str, post: Postprocessing) -> float:
        figures = score(items, post)
        settings = post.model_dump(exclude={"temperature"})
        trials.append({"step": step, **settings, **{k: round(v, 5) for k, v in figures.items()}})
        return figures["objective"]

    tried = counted(THRESHOLDS, len(THRESHOLDS), "thresholds", report)
    plain = {t: attempt("threshold", PLAIN.model_copy(update={"threshold": t})) for t in tried}
    best = max(plain, key=lambda t: (plain[t], -abs(t - 0.5)))  # where all do alike, the middle
    post = PLAIN.model_copy(update={"threshold": best, "keep_largest": True})
    current = attempt("keep_largest", post)
    steps: list[tuple[str, dict[str, Any]]] = [("fill_holes", {"fill_holes": True})]
    steps += [("smooth", {"smooth_radius": radius}) for radius in SMOOTH_RADII]
    for step, change in counted(steps, len(steps), "post-processing", report):
        candidate = post.model_copy(update=change)
        gained = attempt(step, candidate)
        if gained > current + _MIN_GAIN:
            post, current = candidate, gained
    return post, trials
