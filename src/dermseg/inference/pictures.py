"""Pictures and maps of a result: overlay, thumbnail, mask at another size, 16-bit maps."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.images.masks import encode, encode_mask
from dermseg.images.overlay import draw_overlay
from dermseg.images.resize import fit, resize_image, shrink, stretch
from dermseg.inference.outputs import MARGINS
from dermseg.inference.postprocess import Floats, upsample
from dermseg.inference.predictor import Model
from dermseg.inference.result import Result
from dermseg.uncertainty.maps import Uncertainty
from dermseg.uncertainty.margins import Margins, trace_margins

OVERLAY_SIDE = 1800  # overlays are at most this wide and high
THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 200, 60


def thumbnail_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture for the report, at most ``THUMBNAIL_SIDE`` wide and high."""
    height, width = pixels.shape[:2]
    if not THUMBNAIL_SIDE < max(height, width) < 2 * THUMBNAIL_SIDE:
        return shrink(pixels, THUMBNAIL_SIDE)
    # from the gate's copy: no pixel is passed over by interpolation, which takes a tenth of the time
    return resize_image(pixels, *fit(height, width, THUMBNAIL_SIDE), "bilinear")


def resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask at ``size = (height, width)``: where at least half of what a pixel covers is lesion.

    Of masks at least four times as large, two rows and columns for each of the result are looked at, and four
    where there are eight or more.
    """
    if mask.shape == size:
        return mask
    there = min(mask.shape[0] // size[0], mask.shape[1] // size[1])
    if there >= 4:
        picked = 4 if there >= 8 else 2
        looked_at = (picked * size[1], picked * size[0])
        mask = cv2.resize(mask.view(np.uint8), looked_at, interpolation=cv2.INTER_NEAREST_EXACT).view(
            np.bool_
        )
    return stretch(mask.view(np.uint8) * np.uint8(255), *size) >= 128


def draw_described(
    picture: NDArray[np.uint8],
    view_mask: NDArray[np.bool_],
    result: Result,
    model: Model,
    margins: Margins | None = None,
) -> NDArray[np.uint8]:
    """The overlay as users see it: outline, margins, legend, and numbers where there are several lesions.

    Parameters
    ----------
    picture
        ``uint8 (h, w, 3)`` RGB, the image at any size.
    view_mask
        The result's mask at the size of the picture.
    """
    if margins is not None:
        picture = trace_margins(picture, margins)
    return draw_overlay(picture, view_mask, legend=legend_of(result, model, margins), labels=result.labels)


def legend_of(result: Result, model: Model, margins: Margins | None = None) -> list[str]:
    """The lines of text on an overlay."""
    name = f"model {model.card.name} {model.card.version}"
    if result.status == "no_lesion":
        return ["no lesion found", name]
    share = 100 * result.area_fraction
    count = 1 if result.labels is None else int(result.labels.max())
    what = "lesion" if count == 1 else f"{count} lesions,"
    lines = [] if margins is None else [f"white: margins of level {margins.alpha:g}"]
    return [f"{what} {share:.1f} % of image", f"confidence {result.confidence:.2f}", *lines, name]


def encode_uncertainty(
    kind: str, size: tuple[int, int], maps: Uncertainty | None, margins: Margins | None
) -> bytes:
    """One of the files of ``--uncertainty``: 16-bit maps in which 65535 is 1, or 8-bit masks of margins."""
    if kind in MARGINS:
        return encode_mask(getattr(margins, kind))
    return encode_probability(np.clip(upsample(getattr(maps, kind), size), 0.0, 1.0))


def encode_probability(probability: Floats) -> bytes:
    """A 16-bit grey PNG in which 65535 is probability 1."""
    return encode(".png", np.rint(probability * np.float32(65535)).astype(np.uint16), [])
