"""Measures of photographs against images whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermseg.data.synthetic import synthesize
from dermseg.images.resize import shrink
from dermseg.quality.measures import SIDE, blur, measure, vignette


def _blob(side: int = 64, radius: int = 12, *centres: tuple[int, int]) -> np.ndarray:
    probability = np.zeros((side, side), np.float32)
    for x, y in centres or ((side // 2, side // 2),):
        cv2.circle(probability, (x, y), radius, 1.0, -1)
    return probability


def test_blurred_images_score_higher() -> None:
    image, _, _ = synthesize(3, (192, 256))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    sharp, *blurred = [blur(grey), *(blur(cv2.GaussianBlur(grey, (0, 0), sigma)) for sigma in (1, 2, 4, 8))]
    assert sharp < blurred[0] < blurred[1]
    assert sharp + 0.2 < min(blurred[1:]) and max(blurred) <= 1
    assert blur(np.full((20, 20), 90, np.uint8)) == 1.0


def test_vignette_is_the_dark_corners_and_not_a_dark_lesion() -> None:
    image = np.full((200, 260), 170, np.uint8)
    cv2.circle(image, (130, 100), 30, 10, -1)  # a lesion
    assert not vignette(image).any()
    round_frame = np.zeros_like(image)
    cv2.circle(round_frame, (130, 100), 98, 255, -1)
    image[round_frame == 0] = 5
    found = vignette(image)
    assert found[round_frame == 0].mean() > 0.95
    assert not found[80:120, 110:150].any()


@pytest.mark.parametrize(
    ("centres", "lesions", "border"),
    [((), 1, False), (((16, 16), (48, 48)), 2, False), (((0, 32),), 1, True)],
)
def test_lesions_and_border(centres: tuple[tuple[int, int], ...], lesions: int, border: bool) -> None:
    pixels = np.full((100, 150, 3), (200, 160, 140), np.uint8)
    found = measure(pixels, (100, 150), _blob(64, 8, *centres), 0.5)
    assert found.lesions == lesions
    assert (found.border_share > 0.02) == border


def test_no_lesion_and_a_lesion_that_fills_the_image() -> None:
    pixels = np.full((50, 50, 3), 128, np.uint8)
    nothing = measure(pixels, (50, 50), np.zeros((64, 64), np.float32), 0.5)
    assert (nothing.lesions, nothing.lesion_share, nothing.border_share) == (0, 0.0, 0.0)
    full = measure(pixels, (50, 50), np.ones((64, 64), np.float32), 0.5)
    assert full.lesion_share == 1 and full.skin_a is None and full.border_share == 1


def test_light_and_colour() -> None:
    skin = np.full((80, 80, 3), (210, 160, 140), np.uint8)
    a = measure(skin, (80, 80), _blob(), 0.5)
    dark = measure((skin // 8).astype(np.uint8), (80, 80), _blob(), 0.5)
    white = measure(np.full_like(skin, 255), (80, 80), _blob(), 0.5)
    blue = measure(skin[..., ::-1].copy(), (80, 80), _blob(), 0.5)
    assert dark.luma < 25 < a.luma and white.white_share == 1 and a.white_share == 0
    assert a.skin_b is not None and blue.skin_b is not None and blue.skin_b < 0 < a.skin_b


@given(st.integers(1, 700), st.integers(1, 700))
def test_any_size_is_measured(height: int, width: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    assert max(shrink(pixels, SIDE).shape[:2]) == min(SIDE, max(height, width))
    found = measure(pixels, (height, width), _blob(), 0.5)
    assert all(np.isfinite(value) for value in found.as_dict().values() if value is not None)


def test_skin_colour_is_cielab_of_srgb() -> None:
    red = measure(np.full((64, 64, 3), (255, 0, 0), np.uint8), (64, 64), _blob(), 0.5)
    assert red.skin_a == pytest.approx(80.1, abs=0.1) and red.skin_b == pytest.approx(67.2, abs=0.1)
