"""Between the shapes of a LabelMe file and the layers under annotation."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.data.labelme import Annotation, Shape, draw_labels, draw_shape
from dermseg.labeling.editor.tools import Patch, cut

Mask = NDArray[np.bool_]
AREAS = ("polygon", "rectangle", "oriented_rectangle", "circle", "mask")


def areas_of(annotation: Annotation) -> list[Shape]:
    """The shapes that cover an area, not points and lines."""
    return [shape for shape in annotation.shapes if shape.kind in AREAS]


def labels_of(annotation: Annotation) -> list[str]:
    """Classes that cover an area, in the order of the file."""
    return list(dict.fromkeys(s.name for s in areas_of(annotation) if s.name and not s.hole))


def belongs_to(shape: Shape, label: str, annotation: Annotation) -> bool:
    """Whether a shape is part of a class's layer."""
    if shape.name == label:
        return True
    # a hole without a name of its own belongs to the first class of its group
    group = [s.name for s in areas_of(annotation) if not s.hole and s.group == shape.group]
    return shape.hole and not shape.name and bool(group) and group[0] == label


def others_of(annotation: Annotation) -> list[Shape]:
    """Shapes that are part of no layer: points, lines, areas without a label, holes in nothing."""
    labels = labels_of(annotation)
    return [
        shape
        for shape in annotation.shapes
        if shape.kind not in AREAS or not any(belongs_to(shape, label, annotation) for label in labels)
    ]


def draw_layer(annotation: Annotation, label: str) -> Mask:
    """The layer of a class, ``bool (H, W)``."""
    return draw_labels(replace(annotation, shapes=tuple(areas_of(annotation))), [label])


def flags_of(annotation: Annotation) -> dict[str, Any]:
    """LabelMe's flags of the file."""
    found = annotation.extra.get("flags")
    return dict(found) if isinstance(found, dict) else {}


def digest_of(mask: Mask) -> bytes:
    """Short and different for different masks."""
    return hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest()


def inherit(new: list[Shape], old: list[Shape], size: tuple[int, int]) -> list[Shape]:
    """New shapes with group, description and unknown fields of the old ones they overlap most."""
    left = [(shape, cut(draw_shape(shape, size))) for shape in old]
    found = []
    for shape in new:
        drawn = cut(draw_shape(shape, size))
        overlaps = [_overlap(drawn, patch) for _, patch in left]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best < 0 or not overlaps[best]:
            found.append(shape)
            continue
        source, patch = left.pop(best)
        if patch.box == drawn.box and np.array_equal(patch.mask, drawn.mask):
            found.append(source)
        else:
            found.append(replace(shape, group=source.group, extra=source.extra))
    return found


def _overlap(one: Patch, other: Patch) -> int:
    """How many pixels two patches share."""
    left, top = max(one.x, other.x), max(one.y, other.y)
    right = min(one.x + one.mask.shape[1], other.x + other.mask.shape[1])
    bottom = min(one.y + one.mask.shape[0], other.y + other.mask.shape[0])
    if left >= right or top >= bottom:
        return 0
    a, b = (p.mask[top - p.y : bottom - p.y, left - p.x : right - p.x] for p in (one, other))
    return int(np.count_nonzero(a & b))
