"""Means with intervals that know which images belong together: clustered t and BCa bootstrap.

Decisions
- Images of one patient or lesion are alike, so they count as one draw: whole clusters are resampled, and the
  clustered t-interval takes its spread and its degrees of freedom from clusters. The mean stays the mean over
  images. Where every cluster is one image, both are the plain ones.
- The t-interval needs nothing but NumPy. The bootstrap is SciPy's, an optional dependency: without it the
  BCa interval is unknown (None), which callers say, and asking for it alone is an error that names the extra.
- Values that are all equal (every image failed, two models alike on each) say nothing about their spread:
  resamples of them and their variance have none, and an interval without width would claim certainty. The
  intervals over clusters are unknown then.
- Resampling starts from a fixed seed: the same table always gives the same interval.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dermseg.errors import MissingExtraError, UsageError
from dermseg.evaluation.statistics import LEVEL, Interval, mean_interval, t_quantile, wilson_interval

Floats = NDArray[np.float64]
Statistic = Callable[[NDArray[np.intp]], Floats]
"""From the numbers of the drawn clusters, ``(..., m)``, to the figure, ``(...)``."""

RESAMPLES = 4999
_SEED = 20180912
_EXACT = 50  # images up to which Wilcoxon's test counts all signs
_BATCH = 1 << 18  # numbers held at once: 2 MB, which stays in the cache and is five times faster than more


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over images with its 95 % intervals.

    Attributes
    ----------
    t
        The mean with Student's t-interval over images, as if all were independent.
    clusters
        Number of patients or lesions (images, where nothing is known).
    clustered
        The t-interval over clusters; None where each is one image, where there is only one cluster, or where
        clusters do not differ.
    bca
        Bias-corrected and accelerated bootstrap interval over clusters; None where it is unknown.
    """

    t: Interval
    clusters: int
    clustered: tuple[float, float] | None
    bca: tuple[float, float] | None

    @property
    def mean(self) -> float:
        """The mean over images."""
        return self.t.mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """The t-interval that respects clusters; None for a single image or cluster, or without spread."""
        if self.clusters < self.t.n:
            return self.clustered
        if self.t.low is None or self.t.high is None or _no_width(self.t.low, self.t.high):
            return None
        return self.t.low, self.t.high

    def to_dict(self) -> dict[str, object]:
        """``mean``, ``ci95`` (t over images), ``ci95_clustered`` (t over clusters), ``bca95``, ``n``."""
        clustered = self.interval
        return {
            **self.t.to_dict(),
            "ci95_clustered": None if clustered is None else list(clustered),
            "bca95": None if self.bca is None else list(self.bca),
            "n": self.t.n,
            "clusters": self.clusters,
        }


def estimate(values: ArrayLike, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Mean over images with every interval that can be given here; without SciPy ``bca`` is None.

    Parameters
    ----------
    values
        One finite number per image, ``(n,)``, n >= 1.
    clusters
        Which patient or lesion each image belongs to; None takes each image for itself.

    Raises
    ------
    UsageError
        No values, values that are not finite, or another number of clusters.
    """
    array = np.asarray(values, np.float64)
    t = mean_interval(array)
    sums, sizes = cluster_sums(array, clusters)
    clustered = clustered_interval(sums, sizes) if sums.size < array.size else None
    bca = None
    if has_bootstrap() and sums.size > 1 and np.ptp(array) > 0:
        bca = bca_interval(_mean_of(sums, sizes), sums.size)
    return Estimate(t, sums.size, clustered, bca)


def _no_width(low: float, high: float) -> bool:
    """Whether only rounding keeps the ends apart."""
    return high - low <= 1e-12 * max(1.0, abs(low))


def _mean_of(sums: Floats, sizes: Floats) -> Statistic:
    if (sizes == 1).all():
        return lambda drawn: sums[drawn].mean(axis=-1)
    return lambda drawn: sums[drawn].sum(axis=-1) / sizes[drawn].sum(axis=-1)


def cluster_sums(values: Floats, clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum of the values and number of images of each cluster, in order of first appearance."""
    if clusters is None:
        return values, np.ones_like(values)
    if len(clusters) != values.size:
        raise UsageError(f"{values.size} values were given with {len(clusters)} clusters")
    numbers: dict[Hashable, int] = {}
    of_image = np.fromiter((numbers.setdefault(c, len(numbers)) for c in clusters), np.intp, values.size)
    return (
        np.bincount(of_image, weights=values, minlength=len(numbers)).astype(np.float64),
        np.bincount(of_image, minlength=len(numbers)).astype(np.float64),
    )


def clustered_interval(sums: Floats, sizes: Floats) -> tuple[float, float] | None:
    """t-interval of ``sums.sum() / sizes.sum()`` over clusters; None for one cluster, or without spread.

    The variance is that of a ratio of cluster totals (Cochran 1977, Sampling Techniques, chapter 9A).
    """
    m = sums.size
    if m < 2:
        return None
    mean = float(sums.sum() / sizes.sum())
    half = t_quantile(0.5 + LEVEL / 2, m - 1) * _clustered_error(sums, sizes)
    return None if _no_width(mean - half, mean + half) else (mean - half, mean + half)


def _clustered_error(sums: Floats, sizes: Floats) -> float:
    m, mean = sums.size, float(sums.sum() / sizes.sum())
    residuals = sums - mean * sizes
    return math.sqrt(m / (m - 1) * float(residuals @ residuals)) / float(sizes.sum())


def share_interval(hits: ArrayLike, clusters: Sequence[Hashable] | None = None) -> tuple[float, float] | None:
    """Wilson's interval of a share of images, for as many independent images as the clusters are worth.

    That number is the variance of independent images by that over clusters, and is made smaller for few
    clusters by the squares of the normal and the t quantile (Korn and Graubard 1998, Survey Methodology
    24(2), 193-201). Where all images agree, each cluster is worth one. The interval stays within 0 and 1 and
    always has a width. Where each image is its own cluster, it is the plain one.

    Parameters
    ----------
    hits
        0 or 1 for each image, or between where several references disagree, ``(n,)``.
    clusters
        As for `estimate`.

    Returns
    -------
    (low, high) or None
        None for several images of one cluster.
    """
    array = np.asarray(hits, np.float64)
    sums, sizes = cluster_sums(array, clusters)
    n, m = array.size, sums.size
    share = float(array.mean())
    if m == n:
        return wilson_interval(min(float(array.sum()), n), n)
    if m < 2:
        return None
    if share in (0, 1):
        return wilson_interval(share * m, m)
    error = _clustered_error(sums, sizes)
    worth = min(float(n), share * (1 - share) / error**2) if error > 0 else float(n)
    p = 0.5 + LEVEL / 2
    worth *= (NormalDist().inv_cdf(p) / t_quantile(p, m - 1)) ** 2
    return wilson_interval(share * worth, worth)


def has_bootstrap() -> bool:
    """Whether SciPy is installed."""
    try:
        return find_spec("scipy") is not None
    except ValueError:  # a module that is set to None, as tests of the everyday install do
        return False


def bca_interval(statistic: Statistic, clusters: int, *, width: int = 1) -> tuple[float, float] | None:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987, doi 10.2307/2289144).

    Parameters
    ----------
    statistic
        See `Statistic`; drawing each cluster once gives the figure itself.
    clusters
        How many clusters there are.
    width
        How many numbers the statistic holds for each drawn cluster; bounds the memory.

    Returns
    -------
    (low, high) or None
        None for fewer than two clusters, or where the resamples have no spread.

    Raises
    ------
    MissingExtraError
        SciPy is not installed.
    """
    stats = import_stats("the BCa bootstrap")
    if clusters < 2:
        return None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal resamples: SciPy warns and gives NaN, which is None here
        found = stats.bootstrap(
            (np.arange(clusters),),
            lambda drawn, axis: statistic(np.moveaxis(drawn, axis, -1)),
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH // (clusters * width)),
            vectorized=True,
            confidence_level=LEVEL,
            method="BCa",
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    known = math.isfinite(low) and math.isfinite(high) and not _no_width(low, high)
    return (low, high) if known else None


def wilcoxon_p(differences: Floats) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test (1945, doi 10.2307/3001968); None if all are zero.

    It takes images as independent and knows nothing of clusters. Zeros are left out, as he did. With up to 50
    images left it is exact, ties included: of differences that are all -1, 0 or 1 it is McNemar's exact test.
    With more it goes by the normal distribution.

    Raises
    ------
    MissingExtraError
        SciPy is not installed.
    """
    stats = import_stats("Wilcoxon's test")
    if not np.any(differences):
        return None
    left = differences[differences != 0]
    if left.size > _EXACT:
        return float(stats.wilcoxon(left, method="asymptotic").pvalue)
    # SciPy's own exact distribution knows no ties, and its permutations take seconds for a page
    ranks = np.rint(2 * stats.rankdata(np.abs(left))).astype(int)  # twice the rank: ties have halves
    chances = np.ones(1)  # of each sum of positive ranks, where either sign is as likely
    for rank in ranks:
        grown = np.zeros(chances.size + rank)
        grown[: chances.size] += chances / 2
        grown[rank:] += chances / 2
        chances = grown
    found = int(ranks[left > 0].sum())
    return float(min(1.0, 2 * min(chances[: found + 1].sum(), chances[found:].sum())))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several tests (1979): adjusted p-values in the order given."""
    m = len(p_values)
    adjusted, running = [0.0] * m, 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def import_stats(what: str) -> Any:
    """``scipy.stats``, imported when it is first needed.

    Raises
    ------
    MissingExtraError
        SciPy is not installed.
    """
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtraError(f"{what} (SciPy)", "stats") from None
    return stats
