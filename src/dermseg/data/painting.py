"""Painting in images: anti-aliased thin lines, coverage maps and colour mixing for artefacts and lesions.

Lines are drawn as an 8-bit coverage map at twice the size and averaged down: OpenCV's own anti-aliased lines
are at least a pixel wide, real hairs in a 256-pixel dermoscopic image are not.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.errors import UsageError

Image = NDArray[np.uint8]
"""uint8 (H, W, 3) RGB."""
Mask = NDArray[np.bool_]
"""bool (H, W)."""
Cover = NDArray[np.uint8]
"""uint8 (H, W): how much of a pixel is covered, 255 = all of it."""

SHIFT = 4  # fractional bits of the coordinates given to OpenCV


def image_size(image: Image) -> tuple[int, int]:
    """Height and width in pixels; anything but a uint8 RGB image is refused."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(
            f"an image of shape {image.shape} and type {image.dtype} was given",
            hint="artefacts need uint8 (height, width, 3) RGB",
        )
    return image.shape[0], image.shape[1]


def fixed(x: float, y: float) -> tuple[int, int]:
    """Coordinates as OpenCV takes them with ``SHIFT`` fractional bits."""
    return round(float(x) * (1 << SHIFT)), round(float(y) * (1 << SHIFT))


def line(cover: Cover, points: NDArray[np.int32], value: float, thickness: int) -> None:
    """Draw an open line through int32 (N, 2) x, y with ``SHIFT`` fractional bits."""
    cv2.polylines(cover, [points], False, value, thickness, cv2.LINE_AA, SHIFT)


def halve(cover: Cover) -> Cover:
    """Average a map of twice the size down to the image's own."""
    size = (cover.shape[1] // 2, cover.shape[0] // 2)
    return as_uint8(cv2.resize(cover, size, interpolation=cv2.INTER_AREA))


def as_uint8(array: Any) -> NDArray[np.uint8]:
    """OpenCV's stubs say "integer or floating"; this says what comes back."""
    result: NDArray[np.uint8] = array
    return result


def paint(image: Image, colour: NDArray[np.float64], cover: Cover, opacity: float = 1.0) -> Image:
    """Mix ``colour`` into ``image`` by a coverage map, uint8 (H, W), 255 = all colour."""
    weight = cover.astype(np.float32) * np.float32(opacity / 255.0)
    layer = np.empty_like(image)
    layer[:] = np.clip(np.round(colour), 0, 255).astype(np.uint8)
    return as_uint8(cv2.blendLinear(image, layer, 1.0 - weight, weight))


def jitter(rng: np.random.Generator, colour: tuple[int, ...], spread: float) -> NDArray[np.float64]:
    """A colour near ``colour``: mostly lighter or darker, a little in hue."""
    return np.asarray(colour, float) + rng.normal(0.0, spread) + rng.normal(0.0, spread / 4, 3)


def grain(rng: np.random.Generator, height: int, width: int, step: int) -> Cover:
    """Random grey grains of ``step`` pixels, uint8 (H, W)."""
    small = rng.integers(0, 256, (-(-height // step), -(-width // step)), dtype=np.uint8)
    if step == 1:
        return small
    return as_uint8(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def near_edge(rng: np.random.Generator, height: int, width: int, inside: float) -> NDArray[np.float64]:
    """A point (x, y) at ``inside`` (share of the side, negative is outside) from a random edge."""
    edge, along = int(rng.integers(0, 4)), rng.uniform(0.05, 0.95)
    across = inside if edge < 2 else 1.0 - inside
    x, y = (along, across) if edge % 2 == 0 else (across, along)
    return np.array((x * width, y * height))


def covered_points(avoid: Mask | None, points: NDArray[np.float64]) -> int:
    """How many of the points (N, 2) x, y lie on ``avoid``."""
    if avoid is None:
        return 0
    height, width = avoid.shape
    x = np.clip(points[:, 0], 0, width - 1).astype(np.intp)
    y = np.clip(points[:, 1], 0, height - 1).astype(np.intp)
    return int(np.count_nonzero(avoid[y, x]))


def relief(image: Image, light: Cover, dark: Cover) -> Image:
    """Add light and take light away, as gloss and shadow do; cheaper than mixing colours in."""
    shaded = cv2.subtract(image, cv2.cvtColor(dark, cv2.COLOR_GRAY2RGB))
    return as_uint8(cv2.add(shaded, cv2.cvtColor(light, cv2.COLOR_GRAY2RGB)))
