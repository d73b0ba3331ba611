"""Colours of a lesion: of itself, of the skin around it, across its border and on both sides of it.

Colours are CIE L*a*b* of sRGB values (D65), colour differences CIE 1976 (delta E*ab): about 2 are just seen.
They are those of the photograph. Light, white balance and polarisation change them as much as the skin does,
so differences between lesion and skin of one photograph hold better than the colours themselves; how well is
in docs/measuring.md. None of this says what a lesion is.

The border is looked at in eight sectors, as in the ABCD rule of dermatoscopy (Nachbar and others 1994, doi
10.1016/S0190-9622(94)70061-3).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.check import check_frame, check_image, check_mask
from dermseg.measure.basics import describe
from dermseg.measure.shape import DIRECTIONS, around, compass, mirror_image, ring_radii
from dermseg.measure.skin import Image, Mask, Surface, look_at

SECTORS = 8
_STRIP = (0.02, 0.10)  # from where to where strips along the outline go, in equivalent diameters
_FEW = 5  # pixels of a strip in a sector, below which nothing is told of it
_LINES = 4  # of the lines of ``shape`` every fourth: every three degrees
_SMOOTH = 0.03  # of the equivalent diameter: finer texture is not compared with its mirror image


@dataclass(frozen=True, slots=True)
class Colour:
    """Colours of one lesion; what cannot be told is None.

    Attributes
    ----------
    lesion_l, lesion_a, lesion_b
        L*, a*, b*: medians over the lesion.
    skin_l, skin_a, skin_b
        Medians over clean skin around it.
    contrast
        Difference of both.
    colour_spread
        Mean difference of the lesion's pixels from its median: 0 for a lesion of one colour.
    colour_asymmetry
        Mean difference between places of the lesion and their mirror images, for the line through its centre
        of gravity where that is smallest.
    border_contrast, border_contrast_least
        Difference between strips just inside and just outside of the outline: the median over eight
        sectors, and the least of them, where the lesion fades most.
    """

    lesion_l: float
    lesion_a: float
    lesion_b: float
    skin_l: float | None
    skin_a: float | None
    skin_b: float | None
    contrast: float | None
    colour_spread: float
    colour_asymmetry: float | None
    border_contrast: float | None
    border_contrast_least: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Values by name, in the order above, to two digits."""
        return {name: None if v is None else round(v, 2) for name, v in asdict(self).items()}


def describe_colour(image: Image, mask: Mask, others: Mask | None = None) -> Colour | None:
    """Measure the colours of a lesion and its skin.

    Parameters
    ----------
    image
        uint8 ``(h, w, 3)`` RGB, perhaps reduced: at most 384 pixels a side are looked at.
    mask
        bool ``(H, W)`` of the same frame at any size.
    others
        The same of other lesions in the image, which are no skin.

    Returns
    -------
    Colour or None
        None without a lesion, or where hair, vignette or glare cover all of it.

    Raises
    ------
    ImageError, MaskError
        Not such an image or masks, or a mask's sides are not in proportion to the image's.
    """
    check_image(image)
    for given in (mask,) if others is None else (mask, others):
        check_mask(given)
        check_frame(image, given)
    surface = look_at(image, mask, others)
    if surface is None or (lesion := surface.lesion_colour) is None:
        return None
    skin = surface.skin_colour
    sectors = _border(surface)
    lesion_l, lesion_a, lesion_b = (float(value) for value in lesion)
    skin_l, skin_a, skin_b = (None, None, None) if skin is None else (float(value) for value in skin)
    return Colour(
        lesion_l=lesion_l,
        lesion_a=lesion_a,
        lesion_b=lesion_b,
        skin_l=skin_l,
        skin_a=skin_a,
        skin_b=skin_b,
        contrast=None if skin is None else float(np.linalg.norm(lesion - skin)),
        colour_spread=float(np.linalg.norm(surface.lab[surface.spot] - lesion, axis=1).mean()),
        colour_asymmetry=_asymmetry(surface),
        border_contrast=float(np.median(sectors)) if sectors else None,
        border_contrast_least=min(sectors) if sectors else None,
    )


def _border(surface: Surface) -> list[float]:
    """Colour difference across the outline of each sector; empty where half of them cannot be told."""
    lesion = surface.lesion
    basics = describe(lesion)
    assert basics.centroid is not None
    near, far = (max(1.0, share * _diameter(lesion)) for share in _STRIP)
    depth = _distance(lesion) - _distance(~lesion)  # above 0 inside
    y, x = np.mgrid[: lesion.shape[0], : lesion.shape[1]]
    angle = np.arctan2(y - basics.centroid[1], x - basics.centroid[0])
    sector = np.floor(SECTORS * angle / (2 * math.pi)).astype(np.int8) % SECTORS
    found = []
    for number in range(SECTORS):
        here = (sector == number) & surface.clean
        inner = surface.lab[here & (depth > near) & (depth <= far)]
        outer = surface.lab[here & (depth < -near) & (depth >= -far)]
        if min(len(inner), len(outer)) >= _FEW:
            found.append(float(np.linalg.norm(np.median(inner, axis=0) - np.median(outer, axis=0))))
    return found if len(found) > SECTORS // 2 else []


def _asymmetry(surface: Surface) -> float | None:
    """The least mean difference of mirrored places over all lines; None where no places can be compared."""
    center, step = compass(surface.lesion, (1.0, 1.0))
    assert center is not None
    spot = surface.spot.astype(np.float32)
    sigma = max(0.5, _SMOOTH * _diameter(surface.lesion))
    share = np.asarray(cv2.GaussianBlur(spot, (0, 0), sigma))
    # smoothed within the clean lesion alone: what is outside lends it no colour
    smooth = cv2.GaussianBlur(surface.lab * spot[..., None], (0, 0), sigma)
    colours = around(np.asarray(smooth / np.maximum(share, 1e-6)[..., None], np.float32), center, step)
    inside = around(spot, center, step)
    differences = []
    for line in range(0, DIRECTIONS, _LINES):
        image = mirror_image(line)
        both = inside * inside[image] * ring_radii()
        if total := float(both.sum()):
            apart = np.linalg.norm(colours - colours[image], axis=2)
            differences.append(float((both * apart).sum()) / total)
    return min(differences, default=None)


def _diameter(lesion: Mask) -> float:
    return 2 * math.sqrt(int(np.count_nonzero(lesion)) / math.pi)


def _distance(mask: Mask) -> NDArray[np.float32]:
    """To the nearest pixel outside of a mask; 0 outside."""
    distance = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance, np.float32)
