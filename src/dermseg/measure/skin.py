"""Clean skin around a lesion, and clean lesion: without hair, vignette and highlights.

Hair are thin dark or pale lines, the vignette dark regions that reach the image's edge, highlights glare,
bubbles and white scale bars.
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

_GAP, _REACH = 0.02, 0.15  # the ring starts and ends so far from the lesion, as shares of the diagonal
_ENOUGH = 0.01  # share of the image that clean skin must fill
_BLACK = 5.0  # L* below which is the tube of a dermatoscope, and neither skin nor lesion


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """An image as its colours are looked at: at most ``SIDE`` wide and high.

    Attributes
    ----------
    lab
        CIE L*a*b* (D65, of sRGB values), float32 ``(h, w, 3)``.
    lesion, clean, skin
        bool ``(h, w)``: the lesion; neither hair nor vignette nor highlight; clean skin around the lesion.
    """

    lab: Lab
    lesion: Mask
    clean: Mask
    skin: Mask

    @property
    def spot(self) -> Mask:
        """The clean part of the lesion."""
        return self.lesion & self.clean

    @property
    def lesion_colour(self) -> Lab | None:
        """Median over the clean part of the lesion, ``(3,)``; None where nothing of it is clean."""
        colours = self.lab[self.spot]
        return np.asarray(np.median(colours, axis=0), np.float32) if len(colours) else None

    @property
    def skin_colour(self) -> Lab | None:
        """Median over clean skin, ``(3,)``; None where there is too little of it."""
        colours = self.lab[self.skin]
        enough = len(colours) >= _ENOUGH * self.skin.size
        return np.asarray(np.median(colours, axis=0), np.float32) if enough else None


def look_at(image: Image, mask: Mask, others: Mask | None = None) -> Surface | None:
    """Lesion and skin of an image; None where nothing of the mask is left at that size.

    Parameters
    ----------
    image
        uint8 ``(h, w, 3)`` RGB, perhaps reduced.
    mask
        bool ``(H, W)`` of the same frame at any size.
    others
        The same of other lesions: they are neither clean nor skin.
    """
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    lesion = _shrunk(mask, size)
    if not lesion.any():
        return None
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float32)
    clean = clean_pixels(lab, lesion)
    if others is not None:
        clean &= ~_shrunk(others, size) | lesion
    return Surface(lab, lesion, clean, skin_ring(lesion) & clean)


def _shrunk(mask: Mask, size: tuple[int, int]) -> Mask:
    share = cv2.resize(255 * mask.view(np.uint8), size, interpolation=cv2.INTER_AREA)
    return np.asarray(np.asarray(share) >= 128, np.bool_)


def skin_ring(lesion: Mask) -> Mask:
    """Skin near the lesion, bool ``(H, W)``: 2 % to 15 % of the diagonal away from it."""
    diagonal = math.hypot(*lesion.shape)
    distance = cv2.distanceTransform((~lesion).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ring: Mask = (distance > max(1.0, _GAP * diagonal)) & (distance <= max(3.0, _REACH * diagonal))
    return ring


def clean_pixels(lab: Lab, lesion: Mask) -> Mask:
    """Pixels that are neither hair, nor vignette, nor highlight, bool ``(H, W)``, from L*a*b*."""
    return ~(hair(lab) | vignette(lab, lesion) | highlights(lab))


def hair(lab: Lab) -> Mask:
    """Thin lines, darker or paler than what they lie on."""
    light = np.ascontiguousarray(lab[..., 0])
    side = min(light.shape)
    wide = max(5, round(0.045 * side)) | 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wide, wide))
    dark = np.asarray(cv2.morphologyEx(light, cv2.MORPH_BLACKHAT, disc)) > 9.0
    pale = np.asarray(cv2.morphologyEx(light, cv2.MORPH_TOPHAT, disc)) > 12.0
    return _grown(dark | pale, 1)


def vignette(lab: Lab, lesion: Mask) -> Mask:
    """Dark regions that reach the edge of the image: the tube of the dermatoscope and its shadow.

    A dark lesion may reach the edge too: of it only what is black belongs to the tube.
    """
    side = min(lab.shape[:2])
    light = np.asarray(cv2.blur(np.ascontiguousarray(lab[..., 0]), (max(1, side // 40),) * 2))
    middle = float(np.median(light))
    if middle < _BLACK < light.max():  # the tube fills most of the image: how light is what it shows?
        middle = float(np.median(light[light >= _BLACK]))
    limit = min(25.0, 0.5 * middle)
    dark = light < np.where(lesion, min(limit, _BLACK), limit)
    _, labels = cv2.connectedComponents(dark.astype(np.uint8), connectivity=8)
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
