"""Intervals that know which images belong together."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dermseg.errors import MissingExtraError, UsageError
from dermseg.evaluation.intervals import estimate, holm, share_interval, wilcoxon_p
from dermseg.evaluation.statistics import wilson_interval

stats = pytest.importorskip("scipy.stats", reason="scipy comes with the extra [stats]")


def values(n: int, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).beta(8, 2, n))


def test_bca_is_that_of_scipy() -> None:
    data = values(60)
    expected = stats.bootstrap(
        (data,), np.mean, n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    found = estimate(data)
    assert found.bca == pytest.approx((expected.low, expected.high), abs=0.002)
    assert found.clustered is None and found.interval == (found.t.low, found.t.high)
    assert estimate(data) == found  # the same table, the same interval


def test_showing_every_image_twice_adds_nothing() -> None:
    """Copies in one cluster leave the clustered intervals where they were; taken as new they narrow them."""
    data = values(40)
    once, twice = estimate(data), estimate(np.repeat(data, 2), [i // 2 for i in range(80)])
    assert twice.clusters == 40
    assert twice.interval == pytest.approx(once.interval)
    assert twice.bca == pytest.approx(once.bca)
    assert twice.t.low > once.t.low  # type: ignore[operator]


def test_uneven_clusters_keep_the_mean_over_images() -> None:
    data, clusters = values(50), [min(i // 3, 9) for i in range(50)]
    found = estimate(data, clusters)
    assert (found.mean, found.clusters) == (pytest.approx(data.mean()), 10)
    assert found.interval[0] < found.mean < found.interval[1]  # type: ignore[index]
    assert found.bca[0] < found.mean < found.bca[1]  # type: ignore[index]


def test_what_cannot_be_known_is_none() -> None:
    one = estimate([0.5]).to_dict()
    assert (one["mean"], one["ci95"], one["ci95_clustered"], one["bca95"]) == (0.5, None, None, None)
    patient = estimate([0.5, 0.7], ["a", "a"])
    assert (patient.interval, patient.bca) == (None, None)
    assert estimate([0.0] * 3, ["a"] * 3).bca is None  # all of one patient failed
    with pytest.raises(UsageError, match="3 values were given with 2 clusters"):
        estimate([0.1, 0.2, 0.3], ["a", "b"])


def test_equal_values_know_no_interval() -> None:
    """An interval without width would say that the next image is certain to be the same."""
    for found in (
        estimate([0.9] * 5),
        estimate([0.9] * 6, [0, 0, 1, 1, 2, 2]),
        estimate([0.1, 0.9] * 3, [0, 0, 1, 1, 2, 2]),  # patients do not differ, though their images do
    ):
        assert (found.interval, found.bca) == (None, None)


def test_a_share_knows_patients() -> None:
    assert share_interval([1, 0, 0, 0, 1]) == wilson_interval(2, 5)
    assert share_interval([0.5, 0.5, 0.5]) == wilson_interval(1.5, 3)  # readers who disagree
    assert share_interval([1, 0, 0], ["a", "a", "a"]) is None
    # no failure of twelve images of four patients: as of four
    assert share_interval([0] * 12, [i // 3 for i in range(12)]) == wilson_interval(0, 4)
    once = np.arange(40) < 6
    plain, alike = share_interval(once), share_interval(np.repeat(once, 5), [i // 5 for i in range(200)])
    assert plain is not None and alike is not None
    assert alike == pytest.approx(plain, abs=0.02) and alike[1] - alike[0] > plain[1] - plain[0]
    same = share_interval([1, 0] * 20, [i // 2 for i in range(40)])  # as many in each patient
    assert same is not None and 0 < same[0] < 0.5 < same[1] < 1


def test_a_share_of_patients_is_covered() -> None:
    """Patients whose images fail together: Wilson's interval over images holds the truth in 78 % of draws."""
    rng = np.random.default_rng(0)
    hits, over_images, draws = 0, 0, 400
    for _ in range(draws):
        chance = rng.beta(0.3, 2.7, 15)  # of each patient, 0.1 in the mean
        failed = rng.random((15, 8)) < chance[:, None]
        low, high = share_interval(failed.ravel(), [i // 8 for i in range(120)]) or (0, 0)
        hits += low <= 0.1 <= high
        low, high = wilson_interval(int(failed.sum()), 120)
        over_images += low <= 0.1 <= high
    assert over_images / draws < 0.8 < 0.9 < hits / draws


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    found = estimate(values(20))
    assert found.bca is None and found.t.low is not None
    with pytest.raises(MissingExtraError, match=r"dermseg\[stats\]"):
        wilcoxon_p(values(20))


def test_wilcoxon() -> None:
    differences = values(30) - 0.78
    assert wilcoxon_p(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    every_sign = stats.PermutationMethod(n_resamples=2**12)  # exact, since there are no more
    for seed in range(4):
        tied = np.round(np.random.default_rng(seed).normal(0.1, 0.2, 12), 1)
        left = tied[tied != 0]
        assert wilcoxon_p(tied) == pytest.approx(stats.wilcoxon(left, method=every_sign).pvalue), seed
    many = np.round(values(80) - 0.78, 1)
    assert wilcoxon_p(many) == pytest.approx(stats.wilcoxon(many, method="asymptotic").pvalue)
    assert wilcoxon_p(np.zeros(5)) is None


@pytest.mark.parametrize(("worse", "better", "equal"), [(6, 0, 0), (5, 1, 9), (3, 3, 1), (1, 0, 4)])
def test_of_failures_it_is_mcnemars_exact_test(worse: int, better: int, equal: int) -> None:
    differences = np.array([1.0] * worse + [-1.0] * better + [0.0] * equal)
    assert wilcoxon_p(differences) == pytest.approx(stats.binomtest(better, worse + better).pvalue)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
