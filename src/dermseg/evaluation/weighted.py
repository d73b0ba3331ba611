"""Figures over images with weights, for many weightings at once: what a bootstrap over lesions needs.

Weights are ``(..., n)``: how often each image was drawn. Every function returns ``(...)`` and gives NaN where
a draw does not allow the figure (no failure in it, no spread). Drawing each image once gives the plain
figure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from dermseg.evaluation.intervals import bca_interval, cluster_sums, has_bootstrap

Floats = NDArray[np.float64]
Figure = Callable[[Floats], Floats]


def mean(weights: Floats, values: Floats) -> Floats:
    """Weighted mean."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ values) / weights.sum(-1))


def median(weights: Floats, values: Floats) -> Floats:
    """Smallest value at or below which lies half of the weight."""
    if not values.size:
        return np.full(weights.shape[:-1], np.nan)
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[..., order], axis=-1)
    return np.asarray(values[order][np.argmax(total >= total[..., -1:] / 2, axis=-1)])


def pearson(weights: Floats, a: Floats, b: Floats) -> Floats:
    """Pearson's correlation."""
    a, b = a - a.mean(), b - b.mean()  # small numbers: the moments below then cancel little
    total = weights.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ma, mb = weights @ a / total, weights @ b / total
        covariance = weights @ (a * b) / total - ma * mb
        spread = (weights @ (a * a) / total - ma**2) * (weights @ (b * b) / total - mb**2)
        return np.asarray(np.where(spread > 1e-30, covariance / np.sqrt(np.maximum(spread, 1e-300)), np.nan))


def auroc(weights: Floats, score: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Chance that a positive image scores above another one; ties count one half."""
    _, group = np.unique(score, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    sorted_weights = weights[..., order]
    yes = np.add.reduceat(sorted_weights * positive[order], starts, axis=-1)
    no = np.add.reduceat(sorted_weights * ~positive[order], starts, axis=-1)
    return rank_auroc(yes, no)


def rank_auroc(yes: Floats, no: Floats) -> Floats:
    """Area under the curve from the weight of positives and negatives at each rising score, ``(..., k)``."""
    below = np.cumsum(no, axis=-1) - no / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((yes * below).sum(-1) / (yes.sum(-1) * no.sum(-1)))


def refusal_gain(weights: Floats, certainty: Floats, value: Floats) -> Floats:
    """By how much the mean value rises when the least certain 10 % of the weight is refused."""
    order = np.argsort(certainty, kind="stable")
    w, v = weights[..., order], value[order]
    total = np.cumsum(w, axis=-1)
    kept = np.clip(total - 0.1 * total[..., -1:], 0.0, w)
    return mean(kept, v) - mean(w, v)


def interval(figure: Figure, clusters: Sequence[Hashable]) -> tuple[float, float] | None:
    """BCa bootstrap interval of a figure over clusters; None without SciPy or where a draw has no figure."""
    if not has_bootstrap():
        return None
    n = len(clusters)
    _, sizes = cluster_sums(np.zeros(n), clusters)
    numbers: dict[Hashable, int] = {}
    of_image = np.array([numbers.setdefault(c, len(numbers)) for c in clusters], np.intp)
    m = sizes.size

    def statistic(drawn: NDArray[np.intp]) -> Floats:
        flat = drawn.reshape(-1, drawn.shape[-1])
        rows = np.arange(len(flat))[:, None] * m
        counts = np.bincount((flat + rows).ravel(), minlength=len(flat) * m).reshape(-1, m)
        values = figure(counts[:, of_image].astype(np.float64))
        return np.asarray(values).reshape(drawn.shape[:-1])

    return bca_interval(statistic, m, width=4 * -(-n // m))


def with_interval(figure: Figure, clusters: Sequence[Hashable]) -> dict[str, object]:
    """``{"value": x, "ci95": [low, high]}``; null where unknown."""
    plain = float(figure(np.ones(len(clusters))))
    known = np.isfinite(plain)
    ends = interval(figure, clusters) if known else None
    return {"value": plain if known else None, "ci95": None if ends is None else list(ends)}
