"""Distances between outlines against MONAI, `surface-distance` and the authors' way to boundary IoU."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermseg.evaluation.boundary import boundary_metrics

ndimage = pytest.importorskip("scipy.ndimage", reason="scipy comes with the extra [stats]")


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), min(height, width) / 8)
    return noise > np.quantile(noise, rng.uniform(0.3, 0.98))


def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blobs from near to far, cut by the frame or not, a pixel, a line, the whole image; none is empty."""
    rng = np.random.default_rng(11)
    for _ in range(25):
        height, width = (int(side) for side in rng.integers(12, 120, 2))
        a = blob(rng, height, width)
        shift = rng.integers(-6, 7, 2)
        yield np.roll(a, tuple(shift), (0, 1)), a
        yield blob(rng, height, width), a
    whole, dot, line = np.ones((40, 60), bool), np.zeros((40, 60), bool), np.zeros((40, 60), bool)
    dot[3, 50] = True
    line[20, 5:55] = True
    for a in (whole, dot, line):
        for b in (whole, dot, line):
            yield a, b


PAIRS = list(pairs())


def test_distances_are_those_of_monai() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        metrics = pytest.importorskip("monai.metrics", reason="monai is in the dev group")
        for prediction, reference in PAIRS:
            a, b = (torch.from_numpy(m.astype(np.float32))[None, None] for m in (prediction, reference))
            ours = boundary_metrics(prediction, reference, spacing_mm=(0.2, 0.2), tolerance_px=2.0)
            hd95 = metrics.compute_hausdorff_distance(a, b, include_background=True, percentile=95)
            assd = metrics.compute_average_surface_distance(a, b, include_background=True, symmetric=True)
            nsd = metrics.compute_surface_dice(a, b, [2.0], include_background=True, use_subvoxels=True)
            assert ours["hd95_px"] == pytest.approx(float(hd95), rel=1e-5, abs=1e-6)
            assert ours["assd_px"] == pytest.approx(float(assd), rel=1e-5, abs=1e-6)
            assert ours["surface_dice"] == pytest.approx(float(nsd), abs=1e-6)
            assert ours["hd95_mm"] == pytest.approx(0.2 * float(hd95), rel=1e-5, abs=1e-6)


def test_unequal_spacing_is_that_of_monai() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        metrics = pytest.importorskip("monai.metrics", reason="monai is in the dev group")
        for prediction, reference in PAIRS[:20]:
            a, b = (torch.from_numpy(m.astype(np.float32))[None, None] for m in (prediction, reference))
            ours = boundary_metrics(prediction, reference, spacing_mm=(0.5, 0.2))
            options = {"include_background": True, "spacing": (0.5, 0.2)}
            hd95 = metrics.compute_hausdorff_distance(a, b, percentile=95, **options)
            assd = metrics.compute_average_surface_distance(a, b, symmetric=True, **options)
            assert ours["hd95_mm"] == pytest.approx(float(hd95), rel=1e-5)
            assert ours["assd_mm"] == pytest.approx(float(assd), rel=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it calls an older SciPy's names
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5])
def test_surface_dice_is_that_of_surface_distance(tolerance: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("surface_distance", reason="surface-distance is in the dev group")
    for prediction, reference in PAIRS:
        found = package.compute_surface_distances(reference, prediction, (1.0, 1.0))
        expected = package.compute_surface_dice_at_tolerance(found, tolerance)
        ours = boundary_metrics(prediction, reference, tolerance_px=tolerance)
        assert ours["surface_dice"] == pytest.approx(expected, abs=1e-9)


def boundary_iou_by_its_authors(prediction: np.ndarray, reference: np.ndarray) -> float:
    """``boundary_iou`` and ``mask_to_boundary`` as Cheng et al. 2021 give them."""
    rims = []
    for mask in (prediction, reference):
        height, width = mask.shape
        deep = max(1, round(0.02 * math.sqrt(height**2 + width**2)))
        padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=deep)
        rims.append(mask.astype(np.uint8) - eroded[1:-1, 1:-1])
    return float(((rims[0] * rims[1]) > 0).sum() / ((rims[0] + rims[1]) > 0).sum())


def test_boundary_iou_is_that_of_its_authors() -> None:
    for prediction, reference in PAIRS:
        ours = boundary_metrics(prediction, reference)["boundary_iou"]
        assert ours == pytest.approx(boundary_iou_by_its_authors(prediction, reference), abs=1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_distance_transform_is_exact(seed: int) -> None:
    from dermseg.evaluation.boundary import _to_nearest

    rng = np.random.default_rng(seed)
    points = rng.random((int(rng.integers(1, 300)), int(rng.integers(1, 300)))) < rng.uniform(0.0001, 0.1)
    points[rng.integers(points.shape[0]), rng.integers(points.shape[1])] = True
    everywhere = np.ones_like(points)
    assert np.array_equal(_to_nearest(points, everywhere), ndimage.distance_transform_edt(~points).ravel())
