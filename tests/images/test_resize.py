from __future__ import annotations

import cv2
import numpy as np
import pytest

from dermseg.images.resize import halve, resize_image, shrink
from dermseg.inference.predictor import load_model


@pytest.mark.parametrize("size", [(712, 1072), (900, 601), (40, 3000), (255, 256), (64, 64), (1, 1)])
def test_area_is_close_to_the_mean_of_what_a_pixel_covers(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 3).reshape(*size, 3)
    found = resize_image(pixels, 64, 64)
    assert found.shape == (64, 64, 3)
    if min(size) >= 64:
        at_once = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(found.astype(int) - at_once).max() <= 3


def test_halving_stops_before_the_image_is_too_small() -> None:
    pixels = np.zeros((401, 1000, 3), np.uint8)
    assert halve(pixels, 100, 100).shape == (100, 250, 3)
    assert halve(pixels, 101, 100).shape == (200, 500, 3)
    assert shrink(pixels, 500).shape == (200, 500, 3)


def test_network_and_gate_cannot_tell_a_reduced_image() -> None:
    model = load_model(threads=1)
    for size in ((712, 1072), (3000, 2001), (300, 280)):
        pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
        small = model.reduce(pixels)
        assert np.array_equal(model.prepare(small), model.prepare(pixels))
        left, right = model.gate_view(small), model.gate_view(pixels)
        assert left is not None and right is not None and np.array_equal(left, right)
