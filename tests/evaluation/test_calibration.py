"""Whether probabilities mean what they say."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from dermseg.errors import MaskError
from dermseg.evaluation.calibration import BINS, boundary_band, calibrate, pool


def disc(side: int = 100, radius: float = 25.0) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return np.hypot(y - side / 2, x - side / 2) < radius


def test_certain_and_right_or_wrong() -> None:
    lesion = disc()
    right = calibrate(lesion.astype(np.float32), lesion)
    assert right.metrics == {"ece": 0.0, "brier": 0.0, "ece_band": 0.0, "brier_band": 0.0}
    wrong = calibrate((~lesion).astype(np.float32), lesion)
    assert wrong.metrics == {"ece": 1.0, "brier": 1.0, "ece_band": 1.0, "brier_band": 1.0}


def test_probabilities_that_mean_what_they_say() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((400, 400)).astype(np.float32)
    truth = rng.random((400, 400)) < probability
    found = calibrate(probability, truth).everywhere
    assert found.ece < 0.01
    assert found.brier == pytest.approx(1 / 6, abs=0.005)
    bolder = np.clip(1.5 * (probability - 0.5) + 0.5, 0, 1).astype(np.float32)
    assert calibrate(bolder, truth).everywhere.ece > 0.08


def test_by_hand() -> None:
    probability = np.array([[0.1, 0.1, 0.9, 1.0]], np.float32)
    lesion = np.array([[False, True, True, True]])
    found = calibrate(probability, lesion).everywhere
    # 0.1 falls into bin 1, which holds half lesion; 0.9 into 13, 1.0 into the last.
    assert found.ece == pytest.approx((2 * 0.4 + 0.1 + 0.0) / 4, abs=1e-6)
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.01) / 4, abs=1e-6)
    curve = found.to_dict()
    assert [i for i, p in enumerate(curve["probability"]) if p is not None] == [1, BINS - 2, BINS - 1]  # type: ignore[arg-type]


def test_the_band_lies_along_the_outline_and_not_along_the_frame() -> None:
    lesion = disc()
    band = boundary_band(lesion)
    y, x = np.nonzero(band)
    away = np.abs(np.hypot(y - 50, x - 50) - 25)
    assert away.max() < 6 and band.sum() > 2 * np.pi * 25 * 4
    half = np.zeros((50, 60), np.bool_)
    half[:, :30] = True
    columns = np.flatnonzero(boundary_band(half).any(axis=0))
    assert (columns.min(), columns.max()) == (28, 31)
    assert not boundary_band(np.ones((20, 20), np.bool_)).any()
    assert calibrate(np.ones((20, 20), np.float32), np.ones((20, 20), np.bool_)).metrics["ece_band"] is None


def test_images_weigh_the_same_whatever_their_size() -> None:
    small = calibrate(np.zeros((10, 10), np.float32), np.ones((10, 10), np.bool_)).everywhere
    large = calibrate(np.zeros((100, 100), np.float32), np.zeros((100, 100), np.bool_)).everywhere
    both = pool([small, large])
    assert (both.ece, both.brier) == (0.5, 0.5)
    assert both.share.sum() == pytest.approx(1.0)


def test_refuses_other_sizes() -> None:
    with pytest.raises(MaskError):
        calibrate(np.zeros((3, 4), np.float32), np.zeros((4, 3), np.bool_))


def test_large_maps_are_looked_at_in_parts() -> None:
    """The figures are those of all pixels at once; with floats of each 30 megapixels took half a gigabyte."""
    rng = np.random.default_rng(0)
    probability, reference = rng.random((900, 1100), np.float32), disc(1100, 300)[:900]
    tracemalloc.start()
    found = calibrate(probability, reference).everywhere
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 12 * reference.size
    bins = np.digitize(probability, np.arange(1, BINS) / BINS)
    shares, gaps = zip(
        *(
            (here.mean(), abs((probability - reference)[here].sum()))
            for here in (bins == i for i in range(BINS))
        ),
        strict=True,
    )
    assert found.share == pytest.approx(shares)
    assert found.ece == pytest.approx(sum(gaps) / reference.size, abs=1e-6)
    assert found.brier == pytest.approx(((probability - reference) ** 2).mean(), abs=1e-6)
