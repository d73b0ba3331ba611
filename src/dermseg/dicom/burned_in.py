"""Does a picture look as if text were written into it? A warning, never a promise.

Programs burn text in with one colour that is the same to the bit, in strokes, in rows of letters of one
height. Skin, hair and the marks of a ruler seldom have all three. Digits that are printed on a ruler can; the
warning then says where to look.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.measure.basics import Box

MIN_LETTERS = 4


def find_text(pixels: NDArray[np.uint8]) -> list[Box]:
    """Boxes ``(x, y, width, height)`` of what looks like lines of burned-in text, in pixels of the image.

    Parameters
    ----------
    pixels
        ``uint8 (H, W, 3)`` RGB.
    """
    found: list[Box] = []
    for letters in _letter_masks(pixels):
        boxes = _letters(letters)
        found += _lines(boxes)
    return found


def _letter_masks(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Masks of the exact colours that are common and far from their surroundings: white, black, pure hues."""
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    masks = [low >= 250, (high >= 250) & (low <= 5), high <= 5]
    return [mask.astype(np.uint8) for mask in masks if 0 < np.count_nonzero(mask) < mask.size // 4]


def _letters(mask: NDArray[np.uint8]) -> list[Box]:
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count > 20_000:  # noise
        return []
    boxes = []
    for x, y, width, height, area in stats[1:]:
        filled = area / (width * height)
        if 7 <= height <= 120 and 1 <= width <= 1.6 * height and 0.12 <= filled <= 0.95 and area >= 10:
            boxes.append((int(x), int(y), int(width), int(height)))
    return boxes


def _lines(boxes: list[Box]) -> list[Box]:
    """Rows of letters that stand on one line, are of one height and close to each other."""
    lines: list[list[Box]] = []
    for box in sorted(boxes):
        x, y, _, height = box
        for line in lines:
            lx, ly, lwidth, lheight = line[-1]
            near = -2 <= x - (lx + lwidth) <= 1.5 * max(height, lheight)
            level = abs((y + height) - (ly + lheight)) <= 0.35 * max(height, lheight)
            alike = 0.5 <= height / lheight <= 2.0
            if near and level and alike:
                line.append(box)
                break
        else:
            lines.append([box])
    found = []
    for line in lines:
        widths = {width for _, _, width, _ in line}
        if len(line) >= MIN_LETTERS and len(widths) >= 2:  # ticks of a ruler are all alike
            left, top = min(b[0] for b in line), min(b[1] for b in line)
            right, bottom = max(b[0] + b[2] for b in line), max(b[1] + b[3] for b in line)
            found.append((left, top, right - left, bottom - top))
    return found
