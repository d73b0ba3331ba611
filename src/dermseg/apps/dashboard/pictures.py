"""What is drawn on a photograph, in colours that colour-blind people tell apart.

Maps use viridis (even in lightness); two outlines are the orange and the sky blue of Okabe and Ito (2008).
"""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.overlay import CORE, draw_overlay, encode_jpeg, line_widths
from dermseg.inference.pictures import resize_mask
from dermseg.inference.postprocess import Floats

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

ORANGE, BLUE = (230, 159, 0), (86, 180, 233)
_SCALE_SIDE = 256
_OPACITY = 0.85  # of a map, where it is strongest


def draw_result(
    picture: Pixels, mask: Mask, *, labels: Pixels | None = None, outline: bool = True, fill: float = 0.0
) -> Pixels:
    """The outline and a fill of the given opacity in [0, 1] on a copy of `picture` ``uint8 (h, w, 3)``.

    `mask`, and the lesions' numbers in `labels`, may have the size of the full image.
    """
    small = resize_mask(mask, picture.shape[:2])
    out = _tint(picture, small, CORE, fill) if fill > 0 else picture.copy()
    return draw_overlay(out, small, labels=labels) if outline else out


def draw_map(picture: Pixels, values: Floats, mask: Mask | None = None, *, peak: float = 1.0) -> Pixels:
    """A map ``float32 (a, b)`` laid over a picture: clear where it is 0, viridis up to `peak`.

    The picture becomes grey, so that all colour is the map's; the outline of `mask` is a hair line.
    """
    height, width = picture.shape[:2]
    share = np.clip(values / peak, 0, 1) if peak > 0 else np.zeros_like(values)
    wide = np.clip(cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
    colour = cv2.applyColorMap((wide * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    alpha = (_OPACITY * np.minimum(1.0, 1.5 * wide))[..., None]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    out = np.ascontiguousarray((grey * (1 - alpha) + colour * alpha).round(), np.uint8)
    if mask is not None:
        cv2.polylines(
            out, _contours(resize_mask(mask, (height, width))), True, (255, 255, 255), 1, cv2.LINE_AA
        )
    return out


def colour_scale() -> Pixels:
    """The colours of `draw_map` from 0 to its peak, ``uint8 (12, 256, 3)``."""
    ramp = np.tile(np.arange(_SCALE_SIDE, dtype=np.uint8), (12, 1))
    return np.ascontiguousarray(cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[..., ::-1])


def draw_difference(picture: Pixels, first: Mask, second: Mask) -> Pixels:
    """Two masks on one picture: orange where only the first is, blue where only the second, both outlined."""
    a, b = (resize_mask(mask, picture.shape[:2]) for mask in (first, second))
    out = _tint(_tint(picture, a & ~b, ORANGE, 0.5), b & ~a, BLUE, 0.5)
    core, _ = line_widths(picture.shape[1], picture.shape[0])
    for mask, colour in ((a, ORANGE), (b, BLUE)):
        cv2.polylines(out, _contours(mask), True, colour, core, cv2.LINE_AA)
    return out


def _contours(mask: Mask) -> list[NDArray[np.int32]]:
    found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(points, np.int32) for points in found]


def data_url(picture: Pixels) -> str:
    """A picture as text that an ``<img>`` shows."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(picture)).decode()


def _tint(picture: Pixels, where: Mask, colour: tuple[int, int, int], opacity: float) -> Pixels:
    out = picture.copy()
    out[where] = (picture[where] * (1 - opacity) + np.array(colour) * opacity).astype(np.uint8)
    return out
