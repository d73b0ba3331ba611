"""Close-up photographs made from dermoscopic ones: what a phone would see of the same lesion.

There is no set of clinical close-ups to fit on, yet the gate must know that a small lesion on plain skin,
in any aspect, with a limb's outline and a background in view, is nothing to refuse. The lesion's colours,
relative to the skin around it, are laid on skin of any tone that is lit from one side.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

SHAPES = ((256, 192), (192, 256), (256, 144), (144, 256), (224, 224))
# Skin from very light to very dark as sRGB, by eye after the plates of the Monk scale.
_TONES = np.array(
    [
        [238, 208, 190],
        [226, 184, 158],
        [205, 156, 125],
        [172, 120, 88],
        [126, 84, 60],
        [84, 56, 42],
        [52, 38, 32],
    ],
    np.float32,
)


def close_up(rng: np.random.Generator, image: Pixels, mask: Mask) -> Pixels:
    """A close-up with the lesion of a dermoscopic image.

    Parameters
    ----------
    rng
        Source of every choice.
    image, mask
        ``uint8 (H, W, 3)`` RGB and ``bool (H, W)``, the lesion; one that is cut off is left out.

    Returns
    -------
    ndarray
        ``uint8 (h, w, 3)``, one of `SHAPES`.
    """
    height, width = SHAPES[int(rng.integers(len(SHAPES)))]
    skin = _skin(rng, height, width)
    found = _relative_lesion(image, mask)
    if found is not None:
        relative, alpha = found
        long = rng.uniform(0.06, 0.4) * min(height, width)
        scale = long / max(alpha.shape)
        size = (max(4, round(alpha.shape[1] * scale)), max(4, round(alpha.shape[0] * scale)))
        relative = np.asarray(cv2.resize(relative, size, interpolation=cv2.INTER_AREA), np.float32)
        alpha = np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), np.float32)[..., None]
        x = int(rng.integers(0, width - size[0]) * 0.6 + 0.2 * (width - size[0]))
        y = int(rng.integers(0, height - size[1]) * 0.6 + 0.2 * (height - size[1]))
        place = skin[y : y + size[1], x : x + size[0]]
        place *= 1 + alpha * (relative - 1)
    if rng.random() < 0.45:
        skin = _background(rng, skin)
    skin *= rng.uniform(0.88, 1.1, 3).astype(np.float32)  # white balance
    skin += rng.normal(0, rng.uniform(0.5, 4), skin.shape).astype(np.float32)
    out: Pixels = np.clip(skin, 0, 255).astype(np.uint8)
    return out


def _skin(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Plain skin: one tone, large patches of blood, fine relief, light from one side."""
    at = rng.uniform(0, len(_TONES) - 1)
    low = int(at)
    tone = _TONES[low] + (at - low) * (_TONES[min(low + 1, len(_TONES) - 1)] - _TONES[low])
    patches = _field(rng, height, width, 3)
    relief = _field(rng, height, width, 40)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    side = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    light = 1 + np.float32(rng.uniform(0.02, 0.3)) * side - np.float32(rng.uniform(0, 0.25)) * side * side
    light *= 1 + np.float32(rng.uniform(0.005, 0.04)) * relief
    redness = np.float32(rng.uniform(0.0, 0.06)) * patches
    colour = tone * np.stack((1 + 0.2 * redness, 1 - redness, 1 - 0.8 * redness), -1)
    skin: Floats = (colour * light[..., None]).astype(np.float32)
    return skin


def _field(rng: np.random.Generator, height: int, width: int, cells: int) -> Floats:
    """Smooth noise of mean 0 and spread 1 with about ``cells`` bumps along a side."""
    noise = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _relative_lesion(image: Pixels, mask: Mask) -> tuple[Floats, Floats] | None:
    """The lesion's box with a margin: colours over those of the skin around it, and a soft mask.

    None where there is no lesion, or one that is cut off.
    """
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    margin = max(3, round(0.12 * max(width, height)))
    whole = left >= margin and top >= margin
    whole = whole and left + width + margin <= mask.shape[1] and top + height + margin <= mask.shape[0]
    if not (width and whole):
        return None
    box = np.s_[top - margin : top + height + margin, left - margin : left + width + margin]
    inside = mask[box].astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (margin | 1, margin | 1))
    grown = np.asarray(cv2.dilate(inside, kernel), np.uint8)
    ring = grown.astype(bool) & ~mask[box]
    pixels = image[box].astype(np.float32)
    skin = np.median(pixels[ring], axis=0) if ring.sum() > 20 else pixels.reshape(-1, 3).max(axis=0)
    relative: Floats = np.clip(pixels / np.maximum(skin, 16), 0, 1.3).astype(np.float32)
    soft = cv2.GaussianBlur(grown.astype(np.float32), (0, 0), max(1.0, margin / 3))
    soft[0], soft[-1], soft[:, 0], soft[:, -1] = 0, 0, 0, 0
    return relative, np.asarray(soft, np.float32)


def _background(rng: np.random.Generator, skin: Floats) -> Floats:
    """Cut off one side: what lies beyond an arm or a leg, cloth, drape, a dark room."""
    height, width = skin.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along, side = -x * np.sin(angle) + y * np.cos(angle), x * np.cos(angle) + y * np.sin(angle)
    edge = rng.uniform(0.55, 1.1) + rng.uniform(-0.15, 0.15) * along + rng.uniform(-0.2, 0.2) * along**2
    beyond = cv2.GaussianBlur((side > edge).astype(np.float32), (0, 0), rng.uniform(0.6, 2.5))[..., None]
    colour = rng.uniform(5, 235, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(5, 245))
    cloth = colour * (1 + 0.12 * _field(rng, height, width, int(rng.integers(3, 60)))[..., None])
    shaded = skin * (1 - 0.35 * np.clip(1 - (edge - side) / 0.35, 0, 1) ** 2)[..., None]
    out: Floats = (shaded * (1 - beyond) + cloth * beyond).astype(np.float32)
    return out
