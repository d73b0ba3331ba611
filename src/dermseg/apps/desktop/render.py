"""From image, masks and view to the pixels on the screen, and only those that changed. Knows no Qt.

The image is kept with its halves, quarters and so on, so that a view of a large image reads about as many
pixels as it shows. A stroke composes only the screen pixels it touched: painting costs the same on every
image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
BACKGROUND = (24, 22, 22)  # blue, green, red of what lies beside the image
_SMALLEST = 256  # pixels: no need for smaller copies


@dataclass
class Layer:
    """One mask on the image: ``mask`` bool (H, W), colour (red, green, blue), outline alone or filled too."""

    mask: Mask
    colour: tuple[int, int, int]
    visible: bool = True


class Renderer:
    """Composes the screen's pixels.

    Parameters
    ----------
    image
        uint8 (H, W, 3) RGB.

    Attributes
    ----------
    frame
        uint8 (h, w, 4): blue, green, red and nothing, as Qt's RGB32 on little-endian machines.
    scale
        Screen pixels per pixel of the image.
    line
        Width of outlines in screen pixels.
    left, top
        Where the screen's corner lies in the image, in pixels from the image's corner.
    """

    def __init__(self, image: Pixels) -> None:
        self.levels = [np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGRA), np.uint8)]
        while min(self.levels[-1].shape[:2]) > _SMALLEST:
            height, width = (max(1, side // 2) for side in self.levels[-1].shape[:2])
            half = cv2.resize(self.levels[-1], (width, height), interpolation=cv2.INTER_AREA)
            self.levels.append(np.asarray(half, np.uint8))
        self.size = image.shape[:2]
        self.layers: Sequence[Layer] = ()
        self.opacity, self.line = 0.35, 1
        self.scale, self.left, self.top = 1.0, 0.0, 0.0
        self.frame = np.zeros((1, 1, 4), np.uint8)
        self._base = self.frame

    def twin(self) -> Renderer:
        """A second view of the same image, without a second copy of its pixels."""
        twin = Renderer(np.zeros((1, 1, 3), np.uint8))
        twin.levels, twin.size = self.levels, self.size
        return twin

    # -- the view

    def resize(self, width: int, height: int) -> None:
        """The screen has another size."""
        if self.frame.shape[:2] != (height, width):
            self.frame = np.zeros((height, width, 4), np.uint8)

    def fit(self) -> None:
        """Show the whole image."""
        height, width = self.frame.shape[:2]
        self.scale = min(width / self.size[1], height / self.size[0])
        self.left = (self.size[1] - width / self.scale) / 2
        self.top = (self.size[0] - height / self.scale) / 2

    def zoom(self, scale: float, x: float, y: float) -> None:
        """Change the scale; the point of the image at the screen's ``x, y`` stays there."""
        scale = min(max(scale, 0.01), 64.0)
        self.left += x / self.scale - x / scale
        self.top += y / self.scale - y / scale
        self.scale = scale

    def pan(self, dx: float, dy: float) -> None:
        """Move the image on the screen by screen pixels; its middle stays reachable."""
        height, width = self.frame.shape[:2]
        at_x, at_y = self.left - dx / self.scale, self.top - dy / self.scale
        self.left = min(max(at_x, -width / self.scale / 2), self.size[1] - width / self.scale / 2)
        self.top = min(max(at_y, -height / self.scale / 2), self.size[0] - height / self.scale / 2)

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """The image's coordinates (pixel centres are whole numbers) of a point on the screen."""
        return x / self.scale + self.left - 0.5, y / self.scale + self.top - 0.5

    def to_screen(self, x: float, y: float) -> tuple[float, float]:
        """The point on the screen of the image's coordinates."""
        return (x + 0.5 - self.left) * self.scale, (y + 0.5 - self.top) * self.scale

    def screen_box(self, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """The screen's pixels (x, y, width, height) that a box of the image and its outline may change."""
        height, width = self.frame.shape[:2]
        x0, y0 = self.to_screen(box[0] - 0.5, box[1] - 0.5)
        x1, y1 = self.to_screen(box[0] + box[2] - 0.5, box[1] + box[3] - 0.5)
        more = self.line + 2
        left, top = max(int(x0) - more, 0), max(int(y0) - more, 0)
        right, bottom = min(int(x1) + more + 1, width), min(int(y1) + more + 1, height)
        return left, top, max(right - left, 0), max(bottom - top, 0)

    # -- the pixels

    def draw(self) -> None:
        """Everything anew: the view changed."""
        height, width = self.frame.shape[:2]
        level = 0
        while level + 1 < len(self.levels) and self.scale * 2 ** (level + 1) <= 1:
            level += 1
        source = self.levels[level]
        step_x, step_y = source.shape[1] / self.size[1], source.shape[0] / self.size[0]
        # from the screen's pixel centres to those of the level
        move = np.array(
            [
                [step_x / self.scale, 0, (0.5 / self.scale + self.left) * step_x - 0.5],
                [0, step_y / self.scale, (0.5 / self.scale + self.top) * step_y - 0.5],
            ]
        )
        how = cv2.INTER_NEAREST if self.scale >= 4 else cv2.INTER_LINEAR
        self._base = np.asarray(
            cv2.warpAffine(
                source,
                move,
                (width, height),
                flags=how | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(*BACKGROUND, 255),
            ),
            np.uint8,
        )
        self.compose(0, 0, width, height)

    def compose(self, x: int, y: int, width: int, height: int) -> None:
        """The layers anew on a part of the screen: a mask changed there."""
        if width <= 0 or height <= 0:
            return
        rows, columns = slice(y, y + height), slice(x, x + width)
        part = self._base[rows, columns].copy()
        # a line's width more on each side, so that the outline does not end at the part's edge
        more = self.line
        xs = np.floor((np.arange(x - more, x + width + more) + 0.5) / self.scale + self.left).astype(np.intp)
        ys = np.floor((np.arange(y - more, y + height + more) + 0.5) / self.scale + self.top).astype(np.intp)
        inside = ((ys >= 0) & (ys < self.size[0]))[:, None] & ((xs >= 0) & (xs < self.size[1]))
        xs, ys = xs.clip(0, self.size[1] - 1), ys.clip(0, self.size[0] - 1)
        for layer in self.layers:
            if layer.visible:
                strip = layer.mask[:, xs[0] : xs[-1] + 1]
                seen = (np.take(np.take(strip, ys, 0), xs - xs[0], 1) & inside).view(np.uint8)
                _blend(part, seen, layer.colour, self.opacity, more)
        self.frame[rows, columns] = part


def _blend(part: Pixels, seen: Pixels, colour: tuple[int, int, int], opacity: float, line: int) -> None:
    """A filled area, and its outline in the full colour; ``seen`` is ``line`` pixels wider on each side."""
    core = np.asarray(cv2.erode(seen, np.ones((2 * line + 1, 2 * line + 1), np.uint8)), np.uint8)
    seen, core = seen[line:-line, line:-line], core[line:-line, line:-line]
    x, y, width, height = cv2.boundingRect(seen)
    if not width:
        return
    rows, columns = slice(y, y + height), slice(x, x + width)  # on a 4K screen most pixels have no layer
    part, seen, core = part[rows, columns], seen[rows, columns], core[rows, columns]
    paint = np.array((*colour[::-1], 255), np.uint8)
    if opacity > 0:
        ramp = np.repeat(np.arange(256, dtype=np.uint8), 4).reshape(1, 256, 4)
        mixed = cv2.addWeighted(ramp, 1 - opacity, np.full_like(ramp, paint), opacity, 0)
        cv2.copyTo(cv2.LUT(part, mixed), seen, part)
    part[seen > core] = paint
