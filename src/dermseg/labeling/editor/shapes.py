"""Between the shapes of a LabelMe file and the layers under annotation."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.data.labelme import Annotation, Shape, draw_labels, draw_shape

Mask = NDArray[np.bool_]
AREAS = ("polygon", "rectangle", "circle", "mask")


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
    left = [(shape, draw_shape(shape, size)) for shape in old]
    found = []
    for shape in new:
        drawn = draw_shape(shape, size)
        overlaps = [int(np.count_nonzero(drawn & mask)) for _, mask in left]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best < 0 or not overlaps[best]:
            found.append(shape)
            continue
        source, mask = left.pop(best)
        if np.array_equal(mask, drawn):
            found.append(source)
        else:
            found.append(replace(shape, group=source.group, extra=source.extra))
    return found
