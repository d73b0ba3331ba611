"""What pressing, moving and letting go mean for each tool. Knows no window: a view passes points on.

Each call gives the boxes of the image that must be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dermseg.labeling.editor import tools
from dermseg.labeling.editor.document import Box, Document
from dermseg.labeling.editor.tools import Point

Tool = Literal["brush", "eraser", "polygon", "lasso", "fill", "box", "click"]
TOOLS: tuple[Tool, ...] = ("brush", "eraser", "polygon", "lasso", "fill", "box", "click")
Ask = Callable[[Literal["box", "click"], Box, bool], None]


class Pen:
    """The tool in hand.

    Attributes
    ----------
    tool, label, radius, tolerance
        Which tool, the class it paints, half its width in pixels, and how far colours of smart fill may
        differ.
    points
        Of a polygon, lasso or box under way, for the view to show.
    on_ask
        Called when the model is wanted: for a box, or for a click (a box of one pixel); and whether what it
        finds is to be taken away.
    """

    def __init__(self, document: Document, pixels: NDArray[np.uint8], label: str = "lesion") -> None:
        self.document = document
        self.pixels = pixels
        self.tool: Tool = "brush"
        self.label = label
        self.radius = max(2.0, max(document.size) / 100)
        self.tolerance = 12.0
        self.points: list[Point] = []
        self.on_ask: Ask = lambda kind, box, erase: None
        self._erase = False
        self._down = False

    @property
    def busy(self) -> bool:
        """Whether a stroke or a shape is under way."""
        return self._down or bool(self.points)

    @property
    def unclosed(self) -> bool:
        """Whether a polygon is under way that could be closed: work that no undo brings back."""
        return self.tool == "polygon" and len(self.points) > 2

    def choose(self, tool: Tool) -> list[Box]:
        """Take another tool; what is under way is dropped."""
        dropped = self.cancel()
        self.tool = tool
        return dropped

    def press(self, at: Point, *, erase: bool = False) -> list[Box]:
        """Put the tool down. ``erase`` turns what the tool adds into what it takes away."""
        self._erase = erase or self.tool == "eraser"
        if self.tool in ("fill", "click") and not self._inside(at):
            return []  # beside the image there is no colour and no lesion
        if self.tool == "fill":
            patch = tools.smart_fill(self.pixels, at, self.tolerance)
            return self._apply("smart fill", patch)
        if self.tool == "click":
            self.on_ask("click", (round(at[0]), round(at[1]), 1, 1), self._erase)
            return []
        if self.tool == "polygon":
            self.points.append(at)
            return []
        self._down = True
        self.points = [at]
        return self._stroke(at, at) if self.tool in ("brush", "eraser") else []

    def move(self, at: Point) -> list[Box]:
        """Drag the tool."""
        if not self._down:
            return []
        last = self.points[-1]
        if self.tool in ("brush", "eraser"):
            self.points = [at]
            return self._stroke(last, at)
        if self.tool == "box":
            self.points = [self.points[0], at]
        else:
            self.points.append(at)
        return []

    def release(self) -> list[Box]:
        """Lift the tool: the stroke becomes one step of undo."""
        if not self._down:
            return []
        self._down = False
        points, self.points = self.points, []
        if self.tool == "lasso":
            return self._apply("lasso", tools.polygon(points, self.document.size))
        if self.tool == "box":
            (x0, y0), (x1, y1) = points[0], points[-1]
            rows, columns = self.document.size
            left, top = max(round(min(x0, x1)), 0), max(round(min(y0, y1)), 0)
            width = min(round(max(x0, x1)) + 1, columns) - left
            height = min(round(max(y0, y1)) + 1, rows) - top
            if min(width, height) > 4:
                self.on_ask("box", (left, top, width, height), self._erase)
            return []
        self.document.finish(self.tool)
        return []

    def close(self) -> list[Box]:
        """Close the polygon under way."""
        if self.tool != "polygon":
            return []
        points, self.points = self.points, []
        return self._apply("polygon", tools.polygon(points, self.document.size))

    def back(self) -> list[Box]:
        """Take the last corner of a polygon back; of anything else under way, all of it."""
        if self.tool != "polygon":
            return self.cancel()
        del self.points[-1:]
        return []

    def cancel(self) -> list[Box]:
        """Drop what is under way."""
        self._down, self.points = False, []
        return self.document.cancel()

    def grow(self, radius: float) -> list[Box]:
        """Move the class's outline outwards by so many pixels, or inwards where ``radius`` is negative."""
        mask = self.document.layer(self.label)
        under_way, self._erase = self._erase, radius < 0
        patch = tools.shrink(mask, -radius) if radius < 0 else tools.grow(mask, radius)
        boxes = self._apply("shrink" if radius < 0 else "grow", patch)
        self._erase = under_way  # of a polygon that takes away
        return boxes

    def _inside(self, at: Point) -> bool:
        height, width = self.document.size
        return -0.5 <= at[0] < width - 0.5 and -0.5 <= at[1] < height - 0.5

    def _stroke(self, start: Point, end: Point) -> list[Box]:
        patch = tools.brush(start, end, self.radius, self.document.size)
        box = self.document.paint(self.label, patch, erase=self._erase)
        return [] if box is None else [box]

    def _apply(self, name: str, patch: tools.Patch) -> list[Box]:
        box = self.document.paint(self.label, patch, erase=self._erase)
        self.document.finish(name)
        return [] if box is None else [box]
