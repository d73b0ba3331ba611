"""What a photograph looks like around its lesion: contrast to the skin, and skin tone.

Skin tone is the individual typology angle, ITA = atan((L* - 50) / b*) in degrees (Chardon, Cretois and
Hourseau 1991, doi 10.1111/j.1467-2494.1991.tb00561.x), of the median colour of clean skin in a ring around
the lesion. ITA was defined for a calibrated colorimeter. Dermatoscopes differ in light and white balance and
no image here carries a colour chart, so an angle from a photograph sorts images by how the skin *looks*; it
says nothing certain about a person. Where clean skin is scarce, has no colour of skin or is too uneven, the
angle is unknown, and how often that happens is reported with the strata. What counts as
clean skin is told in ``measure.skin``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermseg.measure.skin import Image, Mask, look_at

SKIN_TONES = (
    ("very light", 55.0),
    ("light", 41.0),
    ("intermediate", 28.0),
    ("tan", 10.0),
    ("brown", -30.0),
    ("dark", -90.0),
)
"""Names, and the angle in degrees above which they hold (Del Bino, Bernerd 2013, doi 10.1111/bjd.12529)."""

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
    surface = look_at(image, reference)
    if surface is None:
        return Appearance(None, None, "no lesion")
    spot, tone = surface.lesion_colour, surface.skin_colour
    if tone is None:
        return Appearance(None, None, "too little clean skin around the lesion")
    contrast = None if spot is None else float(np.linalg.norm(spot - tone))
    if tone[2] < _YELLOW:
        return Appearance(contrast, None, "colour cast or overexposure: the skin has no yellow")
    skin = surface.lab[surface.skin]
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
