"""Contrast and skin tone from painted skin whose colour is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from dermseg.data.artefacts import add_bubbles, add_hair
from dermseg.evaluation.appearance import Appearance, describe_appearance, skin_tone

SKIN, SPOT = (65.0, 12.0, 16.0), (40.0, 12.0, 16.0)


def rgb(lab: tuple[float, float, float]) -> np.ndarray:
    """One colour as uint8 RGB."""
    colour = cv2.cvtColor(np.array([[lab]], np.float32), cv2.COLOR_Lab2RGB)
    return np.rint(colour[0, 0] * 255).astype(np.uint8)


def painted(skin: tuple[float, float, float] = SKIN) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:300, :400]
    lesion = np.hypot(y - 150, x - 200) < 60
    noise = np.random.default_rng(0).normal(0, 2, (300, 400, 1))
    image = np.where(lesion[..., None], rgb(SPOT), rgb(skin)) + noise
    return np.clip(image, 0, 255).astype(np.uint8), lesion


def look(image: np.ndarray, lesion: np.ndarray) -> Appearance:
    return describe_appearance(image, lesion)


@pytest.mark.parametrize(
    ("skin", "tone"),
    [((75.0, 8.0, 16.0), "very light"), ((58.0, 12.0, 18.0), "tan"), ((38.0, 12.0, 18.0), "dark")],
)
def test_the_angle_of_known_skin(skin: tuple[float, float, float], tone: str) -> None:
    found = look(*painted(skin))
    expected = math.degrees(math.atan2(skin[0] - 50, skin[2]))
    assert found.ita == pytest.approx(expected, abs=2.0)
    assert skin_tone(expected) == tone and found.reason == ""


def test_contrast_is_the_colour_difference() -> None:
    assert look(*painted()).contrast == pytest.approx(25.0, abs=1.0)


def test_hair_bubbles_and_vignette_are_not_skin() -> None:
    image, lesion = painted()
    clean = look(image, lesion).ita
    rng = np.random.default_rng(3)
    spoilt = add_bubbles(rng, add_hair(rng, add_hair(rng, image)))
    y, x = np.mgrid[:300, :400]
    away = np.hypot(y - 150, x - 200)
    spoilt[away > 170] = 4
    assert look(spoilt, lesion).ita == pytest.approx(clean, abs=4.0)
    spoilt[away > 110] = 4  # two thirds of the image
    assert look(spoilt, lesion).ita == pytest.approx(clean, abs=4.0)
    assert look(spoilt, lesion).contrast == pytest.approx(25.0, abs=2.0)


def test_size_does_not_matter() -> None:
    image, lesion = painted()
    larger = cv2.resize(image, (1200, 900), interpolation=cv2.INTER_CUBIC)
    assert look(larger, lesion).ita == pytest.approx(look(image, lesion).ita, abs=1.0)


def test_what_cannot_be_told_has_a_reason() -> None:
    image, lesion = painted()
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    assert (look(grey, lesion).ita, look(grey, lesion).reason[:11]) == (None, "colour cast")
    assert look(grey, lesion).contrast is not None
    assert look(image, np.zeros_like(lesion)).reason == "no lesion"
    assert look(image, np.ones_like(lesion)).reason == "too little clean skin around the lesion"
