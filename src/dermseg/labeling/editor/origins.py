"""Which shapes a layer came from, so that what nobody changed is written as it was read.

A layer that is again what was read (or proposed) is written with the very shapes that were read. A changed
one is written as new shapes, and each takes group and unknown fields of the old shape it overlaps most.
"""

from __future__ import annotations

from dataclasses import dataclass

from dermseg.data.labelme import Annotation, Shape, mask_to_shapes
from dermseg.labeling.editor.shapes import (
    Mask,
    areas_of,
    belongs_to,
    digest_of,
    draw_layer,
    inherit,
    labels_of,
)


@dataclass(frozen=True)
class _Origin:
    """Shapes that draw a known state of a layer."""

    digest: bytes
    shapes: tuple[Shape, ...]


class Origins:
    """The known states of the layers of an image of ``size`` (height, width), the latest last."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._known: dict[str, list[_Origin]] = {}

    def learn(self, annotation: Annotation) -> dict[str, Mask]:
        """Remember the shapes of an annotation; gives the layers they draw, ``bool (H, W)`` per class."""
        drawn = {label: draw_layer(annotation, label) for label in labels_of(annotation)}
        for label, mask in drawn.items():
            own = tuple(s for s in areas_of(annotation) if belongs_to(s, label, annotation))
            self._known.setdefault(label, []).append(_Origin(digest_of(mask), own))
        return drawn

    def shapes(self, label: str, mask: Mask) -> list[Shape]:
        """The shapes to write for a layer."""
        origins = self._known.get(label, [])
        digest = digest_of(mask)
        for origin in reversed(origins):
            if origin.digest == digest:
                return list(origin.shapes)
        old = [shape for shape in origins[-1].shapes if not shape.hole] if origins else []
        return inherit(mask_to_shapes(mask, label), old, self._size)
