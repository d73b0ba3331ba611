"""Intervals against SciPy, which the everyday install does without."""

from __future__ import annotations

import numpy as np
import pytest

from dermseg.errors import UsageError
from dermseg.evaluation.statistics import mean_interval, paired_difference, t_quantile, wilson_interval

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("p", [1e-4, 0.025, 0.4, 0.5, 0.9, 0.975, 0.995])
def test_t_quantile(p: float) -> None:
    freedom = [0.5, 1, 2, 3, 7, 19, 160, 534, 2325, 9_999, 10_001, 1e6, 1e9]
    found = [t_quantile(p, df) for df in freedom]
    assert found == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [2, 5, 161])
def test_mean_interval(n: int) -> None:
    values = np.random.default_rng(n).beta(8, 2, n)
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    found = mean_interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), *expected), rel=1e-9)
    assert found.to_dict() == {"mean": found.mean, "ci95": [found.low, found.high]}


def test_one_value_has_no_interval() -> None:
    assert mean_interval([0.7]).to_dict() == {"mean": 0.7, "ci95": None}


def test_equal_values_have_no_width() -> None:
    assert mean_interval([0.5] * 4).to_dict() == {"mean": 0.5, "ci95": [0.5, 0.5]}


def test_paired_difference() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0.85, 0.1, 50)
    a, b = difficulty + 0.01 + rng.normal(0, 0.01, 50), difficulty
    found = paired_difference(a.tolist(), b.tolist())
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.low is not None and found.low > 0  # unpaired intervals overlap widely here


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (3, 20), (19, 161), (20, 20)])
def test_wilson_interval(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval([]),
        lambda: mean_interval([0.1, float("nan")]),
        lambda: paired_difference([0.1], [0.1, 0.2]),
        lambda: t_quantile(1.0, 3),
        lambda: wilson_interval(3, 2),
    ],
)
def test_refuses(call: object) -> None:
    with pytest.raises(UsageError):
        call()  # type: ignore[operator]
