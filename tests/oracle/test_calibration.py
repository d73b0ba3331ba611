"""The calibration error against MONAI's, for random maps from sharp to soft."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from dermseg.evaluation.calibration import BINS, calibrate


def test_calibration_error_is_that_of_monai() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        metrics = pytest.importorskip("monai.metrics", reason="monai is in the dev group")
        rng = np.random.default_rng(5)
        for sharpness in (0.2, 1.0, 3.0):
            probability = (1 / (1 + np.exp(-rng.normal(0, sharpness, (64, 48))))).astype(np.float32)
            lesion = rng.random((64, 48)) < np.sqrt(probability)
            p, y = (torch.from_numpy(a.astype(np.float32))[None, None] for a in (probability, lesion))
            expected = metrics.CalibrationErrorMetric(
                num_bins=BINS, include_background=True, calibration_reduction="expected"
            )
            expected(y_pred=p, y=y)
            found = calibrate(probability, lesion).everywhere
            assert found.ece == pytest.approx(float(expected.aggregate()), abs=1e-5)
            assert found.brier == pytest.approx(float(((p - y) ** 2).mean()), abs=1e-6)
