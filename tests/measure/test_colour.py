"""Colours from painted lesions whose colours are known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dermseg.data.artefacts import add_bubbles, add_hair
from dermseg.measure.colour import Colour, describe_colour

SKIN, SPOT = (65.0, 12.0, 16.0), (40.0, 12.0, 16.0)
HEIGHT, WIDTH, RADIUS = 300, 400, 60
Y, X = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
AWAY = np.hypot(Y - 150, X - 200)
LESION = AWAY < RADIUS


def photograph(lab: NDArray[np.float32], noise: float = 1.0) -> NDArray[np.uint8]:
    colours = 255 * cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB)
    return np.clip(colours + np.random.default_rng(0).normal(0, noise, lab.shape), 0, 255).astype(np.uint8)


def painted(fade: float = 0.0) -> NDArray[np.float32]:
    """L*a*b* of a disc on skin, which fades out over so many pixels."""
    share = np.clip((RADIUS - AWAY) / fade + 0.5, 0, 1) if fade else LESION.astype(np.float32)
    return (np.float32(SKIN) + share[..., None] * (np.float32(SPOT) - np.float32(SKIN))).astype(np.float32)


def look(lab: NDArray[np.float32], lesion: NDArray[np.bool_] = LESION) -> Colour:
    found = describe_colour(photograph(lab), lesion)
    assert found is not None
    return found


def test_known_colours() -> None:
    found = look(painted())
    assert (found.lesion_l, found.lesion_a, found.lesion_b) == pytest.approx(SPOT, abs=1)
    assert (found.skin_l, found.skin_a, found.skin_b) == pytest.approx(SKIN, abs=1)
    assert found.contrast == pytest.approx(25, abs=1)
    assert found.border_contrast == pytest.approx(25, abs=1.5)
    assert found.colour_spread < 2 and found.colour_asymmetry is not None and found.colour_asymmetry < 0.5


def test_a_border_that_fades_has_less_contrast_and_the_weakest_sector_is_told() -> None:
    fading = look(painted(fade=60))
    assert fading.border_contrast is not None and fading.border_contrast < 12
    sharp, soft = painted(), painted(fade=60)
    where = (np.arctan2(Y - 150, X - 200) >= 0) & (np.arctan2(Y - 150, X - 200) < math.pi / 4)
    one = look(np.where(where[..., None], soft, sharp))
    assert one.border_contrast == pytest.approx(25, abs=1.5)
    assert one.border_contrast_least == pytest.approx(fading.border_contrast, abs=1.5)


def test_colours_that_have_no_mirror_image() -> None:
    """Four quarters of four colours: the best line leaves two as they are and swaps the most alike."""
    lab = painted()
    for number, (dl, da) in enumerate([(0, 0), (-20, 0), (10, 20), (-10, -10)]):
        right, below = number % 2 == 1, number >= 2
        quarter = LESION & ((X >= 200) == right) & ((Y >= 150) == below)
        lab[quarter] = (SPOT[0] + dl, SPOT[1] + da, SPOT[2])
    mixed = look(lab)
    assert mixed.colour_asymmetry == pytest.approx(math.hypot(10, 10) / 2, abs=0.6)
    assert mixed.colour_spread > 8
    halves = painted()
    halves[LESION & (X >= 200)] = (20.0, 12.0, 16.0)  # it folds onto itself along the line across
    folded = look(halves)
    assert folded.colour_asymmetry is not None and folded.colour_asymmetry < 1 and folded.colour_spread > 5


def test_hair_and_bubbles_change_little() -> None:
    clean = describe_colour(photograph(painted()), LESION)
    rng = np.random.default_rng(3)
    spoilt = describe_colour(add_bubbles(rng, add_hair(rng, photograph(painted()))), LESION)
    assert clean is not None and spoilt is not None
    assert spoilt.contrast == pytest.approx(clean.contrast, abs=2)
    assert spoilt.border_contrast == pytest.approx(clean.border_contrast, abs=3)


def test_reduced_photographs_and_large_masks_tell_the_same() -> None:
    large = np.kron(LESION, np.ones((4, 4), np.bool_))
    small, whole = look(painted()), describe_colour(photograph(painted()), large)
    assert whole is not None and whole.contrast == pytest.approx(small.contrast, abs=0.2)


def test_a_dark_lesion_at_the_edge_is_no_vignette() -> None:
    lab, lesion = painted(), np.hypot(Y - 20, X - 200) < RADIUS
    lab[LESION], lab[lesion] = SKIN, (15.0, 12.0, 10.0)
    found = look(lab, lesion)
    assert (found.lesion_l, found.lesion_a, found.lesion_b) == pytest.approx((15, 12, 10), abs=1.5)
    assert found.contrast == pytest.approx(math.hypot(50, 6), abs=1.5)
    lab[np.hypot(Y - 150, X - 200) > 120] = 0.0  # a tube, and an outline that goes on behind it
    cut = look(lab, lesion)
    assert cut.contrast == pytest.approx(found.contrast, abs=2)


def test_another_lesion_is_no_skin() -> None:
    lab, other = painted(), np.hypot(Y - 150, X - 300) < 35
    lab[other] = (20.0, 20.0, 10.0)
    alone = describe_colour(photograph(lab), LESION, other)
    assert alone is not None
    assert (alone.skin_l, alone.skin_a, alone.skin_b) == pytest.approx(SKIN, abs=1)
    assert alone.border_contrast_least == pytest.approx(25, abs=1.5)


def test_what_cannot_be_told_is_not_told() -> None:
    assert describe_colour(photograph(painted()), np.zeros_like(LESION)) is None
    white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    assert describe_colour(white, LESION) is None  # glare all over
    everywhere = describe_colour(photograph(painted()), np.ones_like(LESION))
    assert everywhere is not None
    assert everywhere.skin_l is None and everywhere.contrast is None and everywhere.border_contrast is None
    speck = np.zeros_like(LESION)
    speck[150, 200] = True
    point = describe_colour(photograph(painted()), speck)
    assert point is not None and point.lesion_l == pytest.approx(SPOT[0], abs=2)
