"""Overlap metrics as pure functions of pixel counts, and the empty-mask rule of every metric.

The empty-mask rule: **what there is nothing of cannot be wrong, and what is missed whole is as wrong as
can be.** In formulas, for every metric of the package:

- a ratio 0/0 is 1. Dice, Jaccard, surface Dice and boundary IoU of two empty masks are 1; an empty
  prediction of a lesion scores 0, and so does a prediction where the reference is empty. Sensitivity is 1
  where the reference has no lesion, specificity is 1 where it has no skin; precision is 1 where nothing was
  predicted, also if that missed a lesion (read it beside sensitivity);
- a distance between two empty outlines is 0; where only one of them is empty it is the diagonal of the
  image, the longest distance there is, so that a missed lesion stays in the mean;
- what is measured near the reference's boundary is unknown (None, and in no mean) where there is none.

For the overlap metrics this is what `isic-challenge-scoring` 5.6, the official scorer of the ISIC
challenges, does in ``metrics.py`` (``binary_dice``, ``binary_jaccard``, ``binary_sensitivity``,
``binary_specificity``, ``binary_ppv``).
"""

from __future__ import annotations

from collections.abc import Callable

from dermseg.evaluation.counts import Counts

JACCARD_THRESHOLD = 0.65
"""Below this Jaccard index an image counts as failed (ISIC 2018 Task 1: two readers agree at about this)."""


def ratio(part: float, whole: float) -> float:
    """``part / whole``, and 1 for 0/0: the empty-mask rule of every share."""
    return part / whole if whole else 1.0


def empty_distance(prediction_empty: bool, reference_empty: bool, diagonal: float) -> float | None:
    """The empty-mask rule of every distance: 0, the image's diagonal, or None where both outlines exist."""
    if prediction_empty and reference_empty:
        return 0.0
    return diagonal if prediction_empty or reference_empty else None


def dice(counts: Counts) -> float:
    """Dice coefficient, ``2 tp / (2 tp + fp + fn)``, in [0, 1] (Dice 1945, doi 10.2307/1932409)."""
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def jaccard(counts: Counts) -> float:
    """Jaccard index or intersection over union, ``tp / (tp + fp + fn)``, in [0, 1]."""
    return ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def threshold_jaccard(counts: Counts) -> float:
    """The Jaccard index, or 0 where it is below 0.65 (Codella et al. 2019, arXiv 1902.03368)."""
    value = jaccard(counts)
    return value if value >= JACCARD_THRESHOLD else 0.0


def sensitivity(counts: Counts) -> float:
    """Share of the reference's lesion that was found (recall), ``tp / (tp + fn)``."""
    return ratio(counts.tp, counts.tp + counts.fn)


def specificity(counts: Counts) -> float:
    """Share of the reference's skin that was left alone, ``tn / (tn + fp)``."""
    return ratio(counts.tn, counts.tn + counts.fp)


def precision(counts: Counts) -> float:
    """Share of the predicted lesion that is lesion (positive predictive value), ``tp / (tp + fp)``."""
    return ratio(counts.tp, counts.tp + counts.fp)


def accuracy(counts: Counts) -> float:
    """Share of pixels that agree, ``(tp + tn) / all``."""
    return ratio(counts.tp + counts.tn, counts.total)


METRICS: dict[str, Callable[[Counts], float]] = {
    "dice": dice,
    "jaccard": jaccard,
    "threshold_jaccard": threshold_jaccard,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "accuracy": accuracy,
    "precision": precision,
}
"""Every metric that is computed per image and then averaged, by the name it has in tables and JSON."""


def pooled_metrics(counts: Counts) -> dict[str, object]:
    """What follows from one confusion matrix over the pixels of all images.

    Large images and large lesions weigh more here than in a mean over images, and a missed small lesion
    hardly shows: these are other numbers than the per-image means, not better or worse estimates of them.

    Parameters
    ----------
    counts
        The sum of the counts of all images.

    Returns
    -------
    dict
        ``confusion`` (pixels), ``mean_iou`` (mean over the two classes), ``pixel_accuracy``,
        ``mean_pixel_accuracy`` (mean of the classes' recalls), ``lesion`` and ``background``, each with
        ``iou``, ``dice``, ``precision`` and ``recall``.
    """
    classes = {"lesion": counts, "background": counts.inverted()}
    per_class = {
        name: {"iou": jaccard(c), "dice": dice(c), "precision": precision(c), "recall": sensitivity(c)}
        for name, c in classes.items()
    }
    return {
        "confusion": {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn},
        "mean_iou": sum(c["iou"] for c in per_class.values()) / 2,
        "pixel_accuracy": accuracy(counts),
        "mean_pixel_accuracy": sum(c["recall"] for c in per_class.values()) / 2,
        **per_class,
    }
