"""Sizes: what a pixel of a smaller or larger image is made of."""

from __future__ import annotations

import numpy as np
import pytest

from dermseg.images.resize import area_mean, fit, resize_image, shrink, stretch


def test_where_an_axis_shrinks_a_pixel_is_the_mean_of_what_it_covers() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 3), np.uint8)
    means = pixels.reshape(10, 4, 6, 3).mean(axis=1)
    assert np.abs(resize_image(pixels, 10, 6) - means).max() <= 0.5
    # the other axis grows meanwhile, between the same means
    wide = resize_image(pixels, 10, 12)
    assert wide.shape == (10, 12, 3)
    assert np.abs(wide[:, 0] - means[:, 0]).max() <= 1 and np.abs(wide[:, -1] - means[:, -1]).max() <= 1
    assert not np.array_equal(resize_image(pixels, 10, 6, "bilinear"), resize_image(pixels, 10, 6))


def test_a_map_is_averaged_in_one_direction_while_it_is_repeated_in_the_other() -> None:
    values = np.random.default_rng(1).random((8, 3), np.float32)
    mean = area_mean(values, 2, 6)
    expected = np.repeat(values.reshape(2, 4, 3).mean(axis=1), 2, axis=1)
    np.testing.assert_allclose(mean, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "fitted"), [((400, 200), (100, 50)), ((200, 400), (50, 100)), ((3000, 2), (100, 1))]
)
def test_a_shrunk_image_keeps_its_shape(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    assert fit(*size, 100) == shrink(pixels, 100).shape[:2] == fitted
    same = shrink(pixels, max(size))
    assert same is pixels, "large enough already"


def test_halving_as_often_as_possible_is_a_mean_still() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (204, 152, 3), np.uint8)
    blocks = pixels.reshape(51, 4, 38, 4, 3).mean(axis=(1, 3))
    assert np.abs(stretch(pixels, 51, 38) - blocks).max() <= 1.5
    slope = np.repeat(np.arange(205, dtype=np.uint8)[:, None, None], 153, axis=1)
    assert np.abs(stretch(slope, 51, 38)[:, 0].ravel() - (np.arange(51) * 4 + 1.5)).max() <= 2, "odd sizes"
