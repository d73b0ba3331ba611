"""Means with intervals, without SciPy (the everyday install does not have it)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from dermseg.errors import UsageError

LEVEL = 0.95  # coverage of every interval
# Above this many degrees of freedom lgamma's rounding costs more digits than the expansion around the
# normal quantile, whose error is then below 1e-15.
_EXPAND_ABOVE = 1e4


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over images and its two-sided 95 % t-interval.

    ``low`` and ``high`` are None for fewer than two values: one value says nothing about its spread. The
    interval is not cut at 0 or 1.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, object]:
        """``{"mean": x, "ci95": [low, high]}``; the interval is null where it is unknown."""
        return {"mean": self.mean, "ci95": None if self.low is None else [self.low, self.high]}


def mean_interval(values: ArrayLike) -> Interval:
    """Mean of independent values with Student's 95 % t-interval.

    Parameters
    ----------
    values
        One number per image, ``(n,)``, finite, n >= 1.

    Raises
    ------
    UsageError
        There are no values, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise UsageError(f"an interval needs a list of at least one value, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError("an interval needs finite values, got NaN or infinity")
    n, mean = array.size, math.fsum(array) / array.size
    if n == 1:
        return Interval(mean, None, None, 1)
    half = t_quantile(0.5 + LEVEL / 2, n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Mean of ``a - b`` over the same images, with its t-interval.

    Pairing removes what the images have in common (some are hard for every model), so the interval is
    narrower than the two single ones suggest. An interval that excludes 0 is a difference that more images
    of this kind would be expected to confirm.

    Parameters
    ----------
    a, b
        One value per image, in the same order of images.

    Raises
    ------
    UsageError
        The lengths differ.
    """
    if len(a) != len(b):
        raise UsageError(
            f"a paired difference needs the same images on both sides, got {len(a)} and {len(b)}"
        )
    return mean_interval(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))


def wilson_interval(hits: float, n: float) -> tuple[float, float]:
    """95 % interval of a share ``hits / n``, usable also near 0 and 1 (Wilson 1927, doi 10.2307/2276774).

    ``n`` need not be whole: of images that are alike fewer are independent.

    Raises
    ------
    UsageError
        ``n`` is not positive or ``hits`` is not in 0..n.
    """
    if not n > 0 or not 0 <= hits <= n:
        raise UsageError(f"{hits} of {n} is not a share")
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    share = hits / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and n hits one end is 0 or 1 exactly; rounding must not carry it past.
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@lru_cache(maxsize=256)
def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t-distribution with ``df`` degrees of freedom.

    Bisects the tail probability ``I_x(df/2, 1/2) / 2`` with ``x = df / (df + t^2)``, where I is the
    regularised incomplete beta function. Agrees with ``scipy.stats.t.ppf`` to a relative 1e-9.

    Raises
    ------
    UsageError
        ``p`` is not in (0, 1) or ``df`` is not positive.
    """
    if not (0 < p < 1 and df > 0):
        raise UsageError(f"there is no t quantile for p={p}, df={df}")
    if p == 0.5:
        return 0.0
    if p < 0.5:
        return -t_quantile(1 - p, df)
    if df > _EXPAND_ABOVE:
        return _expanded_quantile(NormalDist().inv_cdf(p), df)
    low, high = 0.0, 1.0
    while _upper_tail(high, df) > 1 - p:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if _upper_tail(middle, df) > 1 - p:
            low = middle
        else:
            high = middle


def _expanded_quantile(z: float, df: float) -> float:
    """Student's t quantile from the normal one, for many degrees of freedom (Abramowitz, Stegun 26.7.5)."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / df + second / df**2 + third / df**3


def _upper_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0."""
    return _incomplete_beta(df / 2, 0.5, df / (df + t * t), t * t / (df + t * t)) / 2


def _incomplete_beta(a: float, b: float, x: float, y: float) -> float:
    """I_x(a, b) with ``y = 1 - x`` given apart, so that nothing cancels near 1."""
    if x <= 0 or y <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1 - _incomplete_beta(b, a, y, x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y)
    return math.exp(log_front) * _beta_fraction(a, b, x) / a


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I_x(a, b) by Lentz's method (DLMF 8.17.22, Press et al. section 6.4)."""
    tiny = 1e-300
    c, d = 1.0, 1.0 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away_from_zero(1 + term * d, tiny)
            c = _away_from_zero(1 + term / c, tiny)
            step = c * d
            value *= step
        if abs(step - 1) < 1e-15:
            break
    return value


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
