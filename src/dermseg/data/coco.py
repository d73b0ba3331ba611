"""COCO annotations: one JSON with every image and every region.

Format: Lin et al. 2014, doi 10.1007/978-3-319-10602-1_48. Masks are written as compressed run lengths: exact
for every mask, holes included, and read by every COCO tool. Polygons and both kinds of run lengths are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DataError

_LARGEST = 100_000_000  # pixels
_FACTS = "dermseg"
MASKS = "masks"  # among them: how many an image has, for an empty one is no annotation


@dataclass(frozen=True)
class CocoImage:
    """One image of a COCO file: file name, size in pixels, and raw ``segmentation`` values by category.

    ``facts`` is what dermseg wrote of it besides.
    """

    file_name: str
    width: int
    height: int
    regions: tuple[tuple[str, Any], ...]
    facts: Mapping[str, Any]

    def draw(self, categories: Sequence[str]) -> NDArray[np.bool_]:
        """Mask ``bool (H, W)``: the union of the regions of these categories.

        Raises
        ------
        DataError
            A segmentation that cannot be drawn.
        """
        total = np.zeros((self.height, self.width), np.bool_)
        for name, value in self.regions:
            if name in categories:
                try:
                    total |= draw_segmentation(value, (self.height, self.width))
                except (ValueError, TypeError, KeyError, IndexError) as error:
                    raise DataError(
                        f"a region of '{name}' cannot be drawn: {error}", file=self.file_name
                    ) from None
        return total


def read_coco(data: bytes, file: str | Path | None = None) -> list[CocoImage]:
    """Images of a COCO file, in its order.

    Raises
    ------
    DataError
        Not COCO, or an image without a usable size. An annotation that cannot be drawn is no reason.
    """
    try:
        content = json.loads(data)
        names = {item["id"]: str(item["name"]) for item in content["categories"]}
        regions: dict[Any, list[tuple[str, Any]]] = {}
        for item in content["annotations"]:
            number = item["category_id"]  # of none that is listed: its image's trouble, not the whole file's
            name = names.get(number, f"category {number}")
            regions.setdefault(item["image_id"], []).append((name, item.get("segmentation")))
        images = [
            CocoImage(
                str(item["file_name"]),
                int(item["width"]),
                int(item["height"]),
                tuple(regions.get(item["id"], ())),
                dict(item.get(_FACTS) or {}),
            )
            for item in content["images"]
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"not a COCO file: {type(error).__name__} {error}", file=file) from None
    for image in images:
        if not (image.width > 0 < image.height and image.width * image.height <= _LARGEST):
            raise DataError(
                f"'{image.file_name}' has no usable size: {image.width}x{image.height}", file=file
            )
    return images


def write_coco(
    images: Iterable[tuple[str, int, int, Sequence[NDArray[np.bool_]]]],
    categories: Sequence[str],
    info: Mapping[str, Any] | None = None,
    facts: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """A COCO file of images given as file name, width, height and one mask ``bool (H, W)`` per category.

    One image's masks are looked at at a time, so that a generator need not hold those of all.
    ``facts``, where given one for each image, go along; other programs pass them over.
    """
    content: dict[str, Any] = {
        "info": dict(info or {}),
        "licenses": [],
        "images": [],
        "annotations": [],
        "categories": [
            {"id": number, "name": name, "supercategory": ""}
            for number, name in enumerate(categories, start=1)
        ],
    }
    for image_id, (file_name, width, height, masks) in enumerate(images, start=1):
        item = {"id": image_id, "file_name": file_name, "width": width, "height": height}
        content["images"].append(
            item | ({_FACTS: {**facts[image_id - 1], MASKS: len(masks)}} if facts else {})
        )
        for category, mask in enumerate(masks, start=1):
            if not mask.any():
                continue
            x, y, w, h = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "iscrowd": 0,
                    "area": int(mask.sum()),
                    "bbox": [x, y, w, h],
                    "segmentation": {"size": [height, width], "counts": pack_counts(count_runs(mask))},
                }
            )
    return json.dumps(content).encode("utf-8")


def draw_segmentation(value: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask ``bool (H, W)`` of a COCO ``segmentation``: polygons, or run lengths as a list or packed text.

    Raises
    ------
    ValueError
        The value cannot be drawn at this size.
    """
    if value is None or value == []:  # a box alone, of a data set for detection
        raise ValueError("the annotation has no segmentation")
    if isinstance(value, list):
        drawn = np.zeros(size, np.bool_)
        for flat in value:
            points = np.array(flat, np.float64).reshape(-1, 2)
            if len(points) < 3 or not np.isfinite(points).all() or np.abs(points).max() > 1 << 26:
                raise ValueError("a polygon needs three finite points")
            drawn |= _fill(points - 0.5, size)  # COCO's origin is the corner of the first pixel
        return drawn
    if tuple(value["size"]) != size:
        raise ValueError(f"run lengths for {value['size'][1]}x{value['size'][0]} pixels")
    counts = value["counts"]
    runs = unpack_counts(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError("run lengths do not fill the image")
    flat_mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat_mask.reshape(size[1], size[0]).T)


def _fill(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre lies inside a polygon (x, y; even-odd), as COCO's own programs take them.

    OpenCV and Pillow draw the outline too, which makes every mask half a pixel wider all around.
    """
    height, width = size
    turns = np.zeros((height, width + 1), np.bool_)  # where a row of pixels crosses the outline
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        first, last = np.clip(np.ceil(sorted((y0, y1))), 0, height).astype(np.int64)
        if first < last:
            rows = np.arange(first, last)
            columns = np.ceil(x0 + (rows - y0) * ((x1 - x0) / (y1 - y0)))
            turns[rows, np.clip(columns, 0, width).astype(np.int64)] ^= True
    return np.logical_xor.accumulate(turns[:, :width], axis=1)


def count_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths by columns, background first, as COCO counts them."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def pack_counts(runs: Sequence[int]) -> str:
    """Run lengths as COCO's text: differences to the run before the last, five bits in a character."""
    text = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(text)


def unpack_counts(text: str) -> NDArray[np.int64]:
    """Run lengths of COCO's text.

    Raises
    ------
    ValueError
        Not such a text.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 40:
            raise ValueError("packed run lengths are damaged")
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("packed run lengths end early")
    return np.array(runs, np.int64)
