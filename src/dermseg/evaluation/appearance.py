"""What a photograph looks like around its lesion: contrast to the skin, and skin tone.

Skin tone is the individual typology angle, ITA = atan((L* - 50) / b*) in degrees (Chardon, Cretois and
Hourseau 1991, doi 10.1111/j.1467-2494.1991.tb00561.x), of the median colour of clean skin in a ring around
the lesion. ITA was defined for a calibrated colorimeter. Dermatoscopes differ in light and white balance and
no image here carries a colour chart, so an angle from a photograph sorts images by how the skin *looks*; it
says nothing certain about a person. Where clean skin is scarce, has no colour of skin or is too uneven, the
angle is unknown, and how often that happens is reported with the strata.

What does not count as clean skin: hair (thin dark or pale lines), the vignette (dark regions that reach the
image's edge), highlights (glare, bubbles, white scale bars), the lesion and a gap around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Lab = NDArray[np.float32]

SIDE = 384
"""Images are looked at with their longer side reduced to this: medians of colour need no more."""

SKIN_TONES = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
    ("dark", -90.0),
)
"""Names, and the angle in degrees above which they hold (Del Bino, Bernerd 2013, doi 10.1111/bjd.12529)."""

_GAP, _REACH = 0.02, 0.15  # the ring starts and ends so far from the lesion, as shares of the diagonal
_ENOUGH = 0.01  # share of the image that clean skin must fill
_YELLOW = 5.0  # below this b* the angle is close to 90 degrees whatever the lightness: it tells the cast only
_UNEVEN = 35.0  # interquartile range of the angle over the ring's pixels, in degrees


@dataclass(frozen=True, slots=True)
class Appearance:
    """What could be told from one image and its reference.

    Attributes
    ----------
    contrast
        Colour difference (CIE 1976, delta E*ab) between the medians of lesion and clean skin around it; None
        without a lesion or without enough clean skin.
    ita
        Individual typology angle in degrees, in [-90, 90]; None where it could not be estimated.
    reason
        Why ``ita`` is None; empty otherwise.
    """

    contrast: float | None
    ita: float | None
    reason: str


def describe_appearance(image: Image, reference: Mask) -> Appearance:
    """Estimate contrast and skin tone.

    Parameters
    ----------
    image
        uint8 ``(h, w, 3)`` RGB, perhaps reduced.
    reference
        bool ``(H, W)`` of the same frame at any size.
    """
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    share = cv2.resize(reference.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
    lesion = np.asarray(share) >= 128
    if not lesion.any():
        return Appearance(None, None, "no lesion")
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float32)
    clean = clean_pixels(lab)
    skin = lab[skin_ring(lesion) & clean]
    spot = lab[lesion & clean]
    if len(skin) < _ENOUGH * lesion.size:
        return Appearance(None, None, "too little clean skin around the lesion")
    tone = np.median(skin, axis=0)
    contrast = float(np.linalg.norm(np.median(spot, axis=0) - tone)) if len(spot) else None
    if tone[2] < _YELLOW:
        return Appearance(contrast, None, "colour cast or overexposure: the skin has no yellow")
    low, high = np.percentile(typology_angle(skin[:, 0], skin[:, 2]), (25, 75))
    if high - low > _UNEVEN:
        return Appearance(contrast, None, "the skin is too uneven")
    return Appearance(contrast, float(typology_angle(tone[0], tone[2])), "")


def typology_angle(lightness: NDArray[np.float32], yellow: NDArray[np.float32]) -> NDArray[np.float32]:
    """ITA in degrees from L* and b*; with b* > 0 it lies in (-90, 90)."""
    return np.asarray(np.degrees(np.arctan2(lightness - 50, yellow)), np.float32)


def skin_tone(ita: float) -> str:
    """The name of an angle in degrees, of `SKIN_TONES`."""
    return next((name for name, above in SKIN_TONES if ita > above), SKIN_TONES[-1][0])


def skin_ring(lesion: Mask) -> Mask:
    """Skin near the lesion, bool ``(H, W)``: 2 % to 15 % of the diagonal away from it."""
    diagonal = math.hypot(*lesion.shape)
    distance = cv2.distanceTransform((~lesion).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ring: Mask = (distance > max(1.0, _GAP * diagonal)) & (distance <= max(3.0, _REACH * diagonal))
    return ring


def clean_pixels(lab: Lab) -> Mask:
    """Pixels that are neither hair, nor vignette, nor highlight, bool ``(H, W)``, from L*a*b*."""
    return ~(hair(lab) | vignette(lab) | highlights(lab))


def hair(lab: Lab) -> Mask:
    """Thin lines, darker or paler than what they lie on."""
    light = np.ascontiguousarray(lab[..., 0])
    side = min(light.shape)
    wide = max(5, round(0.045 * side)) | 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wide, wide))
    dark = np.asarray(cv2.morphologyEx(light, cv2.MORPH_BLACKHAT, disc)) > 9.0
    pale = np.asarray(cv2.morphologyEx(light, cv2.MORPH_TOPHAT, disc)) > 12.0
    return _grown(dark | pale, 1)


def vignette(lab: Lab) -> Mask:
    """Dark regions that reach the edge of the image: the tube of the dermatoscope and its shadow."""
    side = min(lab.shape[:2])
    light = np.asarray(cv2.blur(np.ascontiguousarray(lab[..., 0]), (max(1, side // 40),) * 2))
    limit = min(25.0, 0.5 * float(np.median(light)))
    _, labels = cv2.connectedComponents((light < limit).astype(np.uint8), connectivity=8)
    parts = np.asarray(labels)
    edge = np.unique(np.concatenate((parts[0], parts[-1], parts[:, 0], parts[:, -1])))
    return _grown(np.isin(parts, edge[edge > 0]), max(2, side // 25))


def highlights(lab: Lab) -> Mask:
    """Glare and white things: almost white and without colour."""
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    return _grown((lab[..., 0] > 90.0) & (chroma < 14.0), 2)


def _grown(mask: Mask, by: int) -> Mask:
    square = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), square), np.uint8) > 0
