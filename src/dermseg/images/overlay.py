"""The outline of a mask on its image, for people to look at.

A single colour disappears on some skin. The outline is a bright line between two dark ones: on light skin
the dark edges show it, on dark skin and pigment the bright core does. Width follows the picture's size, so
that it looks the same at 200 pixels and at 6000.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dermseg.images.check import check_frame, check_image, check_mask
from dermseg.images.masks import encode
from dermseg.images.resize import fit

Pixels = npt.NDArray[np.uint8]
CORE = (64, 255, 240)  # a light cyan: neither skin, blood, melanin nor surgical ink has it
CASING = (8, 16, 20)
_SHIFT = 4  # outlines are drawn at a sixteenth of a pixel


def draw_overlay(
    image: Pixels,
    mask: npt.NDArray[np.bool_],
    *,
    legend: Sequence[str] = (),
    labels: Pixels | None = None,
    max_side: int | None = None,
) -> Pixels:
    """Draw the outline of `mask` on a copy of `image`.

    Parameters
    ----------
    image
        uint8 (H, W, 3) RGB.
    mask
        bool (H, W); or of the full-size picture when `image` is a reduced one: it is scaled to fit.
    legend
        Lines of text for the corner that covers least of the lesion; a piece of outline is put before the
        first. Lines that do not fit are left out.
    labels
        uint8, the number of the lesion at each pixel, as large as `mask` or as the full-size picture: where
        there are several, each gets its number.
    max_side
        Reduce the picture so that its longer side has at most this many pixels.

    Returns
    -------
    uint8 (h, w, 3) RGB

    Raises
    ------
    ImageError, MaskError
        Not such an image or mask, or the mask's sides are not in proportion to the image's.
    """
    check_image(image)
    check_mask(mask)
    check_frame(image, mask)
    height, width = image.shape[:2]
    if max_side is not None and max(height, width) > max_side:
        height, width = fit(height, width, max_side)
        canvas = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    else:
        canvas = np.array(image, np.uint8, order="C")
    outlines = _outlines(mask, width, height)
    core, casing = line_widths(width, height)
    for thickness, colour in ((casing, CASING), (core, CORE)):
        cv2.polylines(canvas, outlines, True, colour, thickness, cv2.LINE_AA, _SHIFT)
    if labels is not None and int(labels.max()) > 1:
        _draw_numbers(canvas, labels)
    if legend:
        _draw_legend(canvas, mask, list(legend))
    return canvas


def line_widths(width: int, height: int) -> tuple[int, int]:
    """Width in pixels of the bright line, and of the dark one under it."""
    core = max(1, round(math.sqrt(width * height) / 320))
    return core, core + 2 * max(1, round(core * 0.6))


def _outlines(mask: npt.NDArray[np.bool_], width: int, height: int) -> list[npt.NDArray[np.int32]]:
    """Contours of the mask in the canvas's pixels, as fixed-point numbers."""
    grey = np.ascontiguousarray(mask, np.bool_).view(np.uint8)
    found, _ = cv2.findContours(grey, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    scale = np.array([width / mask.shape[1], height / mask.shape[0]])
    # Pixel centres of the one grid to those of the other.
    return [np.rint(((points + 0.5) * scale - 0.5) * (1 << _SHIFT)).astype(np.int32) for points in found]


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_numbers(canvas: Pixels, labels: Pixels) -> None:
    """Write each lesion's number above it, or below its edge where there is no room; changes `canvas`."""
    height, width = canvas.shape[:2]
    small = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    size, gap = round(1.3 * _font_size(width, height)), line_widths(width, height)[1]
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for number in range(1, int(small.max()) + 1):
        _, top, _, down = cv2.boundingRect((small == number).view(np.uint8))
        if not down:  # too small to be seen
            continue
        x = int(np.flatnonzero(small[top] == number).mean())
        above = top >= size + 2 * gap
        draw.text(
            (min(max(x, size), width - size), top - gap if above else top + gap),
            str(number),
            fill=CORE,
            font=_font(size),
            anchor="ms" if above else "mt",
            stroke_width=max(1, size // 7),
            stroke_fill=CASING,
        )
    canvas[:] = np.asarray(picture)


def _font_size(width: int, height: int) -> int:
    return max(9, round(math.sqrt(width * height) / 32))


def _draw_legend(canvas: Pixels, mask: npt.NDArray[np.bool_], lines: list[str]) -> None:
    """Put the legend on a dark box in a corner; changes `canvas`."""
    height, width = canvas.shape[:2]
    size = _font_size(width, height)
    margin, swatch = max(2, size // 2), round(size * 1.6)
    line_height = round(size * 1.3)

    def text_width(font_size: int) -> int:
        return max(round(_font(font_size).getbbox(line)[2]) for line in lines) + swatch + 4 * margin

    while size > 9 and text_width(size) > width:
        size -= 1
        margin, swatch, line_height = max(2, size // 2), round(size * 1.6), round(size * 1.3)
    lines = lines[: max(0, (height // 2 - 2 * margin) // line_height)]
    if not lines or text_width(size) > width:
        return  # a picture as small as a stamp has no room for words
    box_width = text_width(size) - 2 * margin
    box_height = len(lines) * line_height + margin
    x, y = _free_corner(mask, (width, height), (box_width, box_height), margin)
    part = canvas[y : y + box_height, x : x + box_width]
    part[:] = (part * 0.22 + np.array(CASING) * 0.78).astype(np.uint8)
    picture = Image.fromarray(part)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        at = (margin + swatch, margin // 2 + number * line_height)
        draw.text(at, line, fill=(255, 255, 255), font=_font(size))
    part[:] = np.asarray(picture)
    core, casing = line_widths(width, height)
    middle = y + margin // 2 + line_height // 2
    ends = (x + margin, middle), (x + swatch - casing // 2, middle)
    cv2.line(canvas, *ends, (200, 200, 200), casing, cv2.LINE_AA)  # dark on a dark box would not show
    cv2.line(canvas, *ends, CASING, max(casing - 2, core), cv2.LINE_AA)
    cv2.line(canvas, *ends, CORE, core, cv2.LINE_AA)


def _free_corner(
    mask: npt.NDArray[np.bool_], size: tuple[int, int], box: tuple[int, int], margin: int
) -> tuple[int, int]:
    """Left and top of the box in the corner with the least lesion under it; below left if all are free."""
    (width, height), (box_width, box_height) = size, box
    right, bottom = max(0, width - box_width - margin), max(0, height - box_height - margin)
    left, top = min(margin, right), min(margin, bottom)
    across, down = mask.shape[1] / width, mask.shape[0] / height

    def covered(corner: tuple[int, int]) -> int:
        x, y = corner
        rows = slice(int(y * down), int((y + box_height) * down) + 1)
        columns = slice(int(x * across), int((x + box_width) * across) + 1)
        return int(np.count_nonzero(mask[rows, columns]))

    return min(((left, bottom), (right, bottom), (left, top), (right, top)), key=covered)


def encode_jpeg(image: Pixels, quality: int = 90) -> bytes:
    """Encode uint8 (H, W, 3) RGB as JPEG.

    Raises
    ------
    ImageError
        Not such an image, or a side has more than 65,500 pixels.
    """
    check_image(image)
    bgr = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return encode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(image: Pixels) -> bytes:
    """Encode uint8 (H, W, 3) RGB as PNG, without loss.

    Raises
    ------
    ImageError
        Not such an image, or the encoder refuses it.
    """
    check_image(image)
    return encode(".png", np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)), [])
