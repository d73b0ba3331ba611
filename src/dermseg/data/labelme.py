"""LabelMe files: outlines drawn by people, read and written so that nothing in them is lost.

Decisions
- Shapes are drawn as LabelMe's own ``shape_to_mask`` draws them (Pillow, outline included), so a mask is the
  same here and there, and mask -> file -> mask is exact.
- A region without holes is written as a polygon, which people can edit; one with holes as a ``mask`` shape
  (LabelMe 5.3 and later), because LabelMe knows no holes.
- Holes in files of others: a shape that is flagged ``hole`` or labelled ``hole`` or ``<label>_hole`` is taken
  out of the shapes that share its group.
- Fields that nobody here knows are kept and written back.

Format: https://github.com/wkentaro/labelme (Wada, doi 10.5281/zenodo.5711226).
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dermseg.errors import DataError
from dermseg.images.contours import mask_to_polygons

VERSION = "5.5.0"  # of the format as it is written here
_POINTS = {  # LabelMe's kinds of shapes, and how many points each has at least
    "polygon": 3,
    "rectangle": 2,
    "oriented_rectangle": 4,
    "circle": 2,
    "mask": 2,
    "line": 2,
    "linestrip": 2,
    "point": 1,
    "points": 1,
}
_LARGEST = 100_000_000  # pixels
_LINE_WIDTH = 10  # LabelMe's


@dataclass(frozen=True)
class Shape:
    """One shape of a LabelMe file.

    Attributes
    ----------
    label
        What it shows.
    kind
        LabelMe's ``shape_type``.
    points
        float64 (N, 2), x and y in pixels of the image.
    group
        LabelMe's ``group_id``: shapes of one group are one thing.
    mask
        bool (h, w) of a ``mask`` shape, its first pixel at the first point; else None.
    hole
        Whether the shape is taken out of its group.
    extra
        Every other field, as it was read.
    """

    label: str
    kind: str
    points: NDArray[np.float64]
    group: int | None = None
    mask: NDArray[np.bool_] | None = None
    hole: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The label of what the shape belongs to; a hole has that of its region, or none."""
        if self.hole and self.label.lower() == "hole":
            return ""
        return self.label[: -len("_hole")] if self.hole and self.label.endswith("_hole") else self.label


@dataclass(frozen=True)
class Annotation:
    """A LabelMe file: the image it belongs to, its size in pixels, and the shapes."""

    image: str
    width: int
    height: int
    shapes: tuple[Shape, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the shapes that cover an area, sorted."""
        return tuple(sorted({s.name for s in self.shapes if s.name and s.kind not in ("point", "points")}))


def is_hole(label: str) -> bool:
    """Whether a label is that of a hole."""
    return label.lower() == "hole" or label.endswith("_hole")


def check_label(label: str) -> None:
    """See that a class may be called so.

    Raises
    ------
    DataError
        Its outlines would be read as holes.
    """
    if is_hole(label):
        reason = f"'{label}' is no name for a class: in LabelMe files it means a hole in another one"
        raise DataError(reason, hint="give it another name")


def read_labelme(data: bytes, file: str | Path | None = None) -> Annotation:
    """Read a LabelMe file.

    Raises
    ------
    DataError
        Not JSON, not LabelMe, or a shape that cannot be drawn (its number is given).
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise DataError("not a JSON file", file=file) from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError("not a LabelMe file: it has no list 'shapes'", file=file)
    width, height = content.get("imageWidth"), content.get("imageHeight")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise DataError(
            f"imageWidth {width!r} and imageHeight {height!r} are not a size in pixels",
            file=file,
            hint="early versions of LabelMe wrote none: open and save the file in a later one",
        )
    if width * height > _LARGEST:
        raise DataError(f"an image of {width}x{height} pixels is larger than can be", file=file)
    shapes = []
    for number, item in enumerate(content["shapes"], start=1):
        try:
            shapes.append(_read_shape(item))
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise DataError(f"shape {number} cannot be read: {error}", file=file) from None
    known = ("shapes", "imagePath", "imageWidth", "imageHeight")
    extra = {key: value for key, value in content.items() if key not in known}
    return Annotation(str(content.get("imagePath") or ""), width, height, tuple(shapes), extra)


def _read_shape(item: dict[str, Any]) -> Shape:
    kind = item.get("shape_type") or "polygon"
    if kind not in _POINTS:
        raise ValueError(f"unknown shape_type '{kind}'")
    points = np.array(item["points"], dtype=np.float64).reshape(-1, 2)
    needed = _POINTS[kind]
    if len(points) < needed or not np.isfinite(points).all():
        raise ValueError(f"a{'n' * (kind[0] == 'o')} {kind} needs {needed} points with finite coordinates")
    mask = None
    if kind == "mask":
        raw = base64.b64decode(item["mask"], validate=True)
        with Image.open(io.BytesIO(raw), formats=["PNG"]) as picture:
            if picture.width * picture.height > _LARGEST:
                raise ValueError("its mask is larger than can be")
            mask = np.asarray(picture.convert("L")) > 0
    label, group = str(item["label"]), item.get("group_id")
    flags = item.get("flags") or {}
    hole = bool(flags.get("hole")) or is_hole(label)
    known = ("label", "points", "group_id", "shape_type", "mask")
    extra = {key: value for key, value in item.items() if key not in known}
    return Shape(label, kind, points, None if group is None else int(group), mask, hole, extra)


def write_labelme(annotation: Annotation) -> bytes:
    """The file's content, UTF-8 JSON that LabelMe 5 and 6 open."""
    content: dict[str, Any] = {"version": VERSION, "flags": {}, **annotation.extra}
    content["shapes"] = [_write_shape(shape) for shape in annotation.shapes]
    content["imagePath"] = annotation.image
    content.setdefault("imageData", None)
    content["imageHeight"], content["imageWidth"] = annotation.height, annotation.width
    # Bytes of a file's name that are not UTF-8 become JSON's own escapes, and are read back as they were.
    return json.dumps(content, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")


def _write_shape(shape: Shape) -> dict[str, Any]:
    item: dict[str, Any] = {
        "label": shape.label,
        "points": shape.points.tolist(),
        "group_id": shape.group,
        "description": "",
        "shape_type": shape.kind,
        "flags": {},
        "mask": None,
        **shape.extra,
    }
    if shape.mask is not None:
        buffer = io.BytesIO()
        Image.fromarray(shape.mask.astype(np.uint8)).save(buffer, "PNG")
        item["mask"] = base64.b64encode(buffer.getvalue()).decode("ascii")
    return item


def draw_labels(annotation: Annotation, labels: Iterable[str]) -> NDArray[np.bool_]:
    """Mask ``bool (H, W)`` of everything with one of these labels; holes are taken out of their groups."""
    wanted = set(labels)
    size = (annotation.height, annotation.width)
    total = np.zeros(size, np.bool_)
    chosen = [shape for shape in annotation.shapes if shape.name in wanted or (shape.hole and not shape.name)]
    for key in {(shape.name, shape.group) for shape in chosen if not shape.hole}:
        part = np.zeros(size, np.bool_)
        own = [shape for shape in chosen if not shape.hole and (shape.name, shape.group) == key]
        holes = [s for s in chosen if s.hole and s.group == key[1] and s.name in ("", key[0])]
        for shape in own:
            part |= draw_shape(shape, size)
        for shape in holes:
            part &= ~draw_shape(shape, size)
        total |= part
    return total


def draw_shape(shape: Shape, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask ``bool (H, W)`` of one shape; points and what lies outside of the image give nothing."""
    height, width = size
    if shape.mask is not None:
        drawn = np.zeros(size, np.bool_)
        x, y = (int(v) for v in shape.points[0])
        top, left = max(y, 0), max(x, 0)
        bottom, right = min(y + shape.mask.shape[0], height), min(x + shape.mask.shape[1], width)
        if top < bottom and left < right:
            drawn[top:bottom, left:right] = shape.mask[top - y : bottom - y, left - x : right - x]
        return drawn
    # On a picture of the whole size, since where a line falls between two pixels Pillow rounds otherwise at
    # other coordinates; but a file may have hundreds of shapes, and only what is drawn is taken from it.
    box = _extent(shape, size)
    drawn = np.zeros(size, np.bool_)
    if box[0] < box[2] and box[1] < box[3]:
        drawn[box[1] : box[3], box[0] : box[2]] = np.asarray(_draw_points(shape, size).crop(box), np.bool_)
    return drawn


def _extent(shape: Shape, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (exclusive) of what a shape may cover of the image."""
    low, high, margin = shape.points.min(0), shape.points.max(0), 2.0
    if shape.kind == "circle":
        margin += math.dist(*shape.points[:2])
        low = high = shape.points[0]
    elif shape.kind in ("line", "linestrip"):
        margin += _LINE_WIDTH
    left, top = (int(max(v, 0)) for v in np.floor(low - margin))
    right, bottom = (int(min(v, side)) for v, side in zip(np.ceil(high + margin), size[::-1], strict=True))
    return left, top, right, bottom


def _draw_points(shape: Shape, size: tuple[int, int]) -> Image.Image:
    picture = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(picture)
    xy = [(float(x), float(y)) for x, y in shape.points]
    if shape.kind == "circle":
        (cx, cy), (px, py) = xy[:2]
        radius = math.hypot(cx - px, cy - py)
        draw.ellipse([cx - radius, cy - radius, cx + radius, cy + radius], outline=1, fill=1)
    elif shape.kind == "rectangle":
        corners = np.array(xy)
        draw.rectangle([*corners.min(0), *corners.max(0)], outline=1, fill=1)
    elif shape.kind in ("line", "linestrip"):
        draw.line(xy, fill=1, width=_LINE_WIDTH)
    elif shape.kind in ("polygon", "oriented_rectangle"):
        draw.polygon(xy, outline=1, fill=1)
    return picture


def mask_to_shapes(mask: NDArray[np.bool_], label: str, *, epsilon: float = 0.0) -> list[Shape]:
    """Shapes that draw a mask, largest first: one for each region.

    Parameters
    ----------
    mask
        bool (H, W).
    epsilon
        See ``mask_to_polygons``: how far in pixels a polygon may leave the mask's outline; 0 is exact.
    """
    shapes = []
    for polygon in mask_to_polygons(mask, epsilon=epsilon):
        if polygon.holes or len(polygon.outer) < 3:  # lines of pixels are no polygon either
            shapes.append(_as_mask(mask, polygon.outer, label))
        else:
            shapes.append(Shape(label, "polygon", polygon.outer.astype(np.float64)))
    return shapes


def _as_mask(mask: NDArray[np.bool_], outline: NDArray[np.float32], label: str) -> Shape:
    left, top = outline.min(0).astype(int)
    right, bottom = outline.max(0).astype(int)
    # other regions may lie inside this one's box: only what its outline encloses is meant
    picture = Image.new("1", (int(right - left + 1), int(bottom - top + 1)))
    inner = [(float(x - left), float(y - top)) for x, y in outline]
    draw = ImageDraw.Draw(picture)
    if len(inner) == 1:
        draw.point(inner, fill=1)
    elif len(inner) == 2:
        draw.line(inner, fill=1)
    else:
        draw.polygon(inner, outline=1, fill=1)
    crop = mask[top : bottom + 1, left : right + 1] & np.asarray(picture, np.bool_)
    points = np.array([[left, top], [right, bottom]], np.float64)
    return Shape(label, "mask", points, mask=np.ascontiguousarray(crop))
