"""What happens to dermoscopic photographs, in five severities: the pictures behind the robustness figures.

Decisions
- After ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261): one corruption at a time, severities 1
  to 5, and figures averaged over severities, then corruptions. The list is dermoscopy's own.
- Lengths are shares of the image's shorter side, so a picture is spoilt alike at any size.
- Everything follows from (seed, image id, corruption): every model sees the same spoilt pictures, whatever
  ran before and in whatever order, and a higher severity is more of the same (the same hairs and then some).
- Things on the skin (hair, ruler, bubbles, ink) are those of ``data.artefacts``; severity is how
  many layers of them there are. They may cover the lesion: the lesion is still where it was.
- Rotation and scale move the picture and its reference alike; what comes in from outside the frame is black,
  as in a turned or distant photograph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.artefacts import add_bubbles, add_gel, add_hair, add_ink, add_ruler
from dermseg.errors import UsageError

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Change = Callable[[np.random.Generator, Image, int], Image]

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Corruption:
    """One way to spoil a picture.

    Attributes
    ----------
    change
        From ``(rng, image, severity)`` to the spoilt image of the same size; None where pixels only move.
    move
        From ``(rng, severity)`` to the angle in degrees and the scale by which pixels move about the image's
        centre; None where they stay.
    """

    change: Change | None = None
    move: Callable[[np.random.Generator, int], tuple[float, float]] | None = None


def corrupt(
    image: Image, reference: Mask, name: str, severity: int, *, image_id: str, seed: int = 0
) -> tuple[Image, Mask]:
    """A spoilt picture with the reference that fits it.

    Parameters
    ----------
    image
        uint8 ``(h, w, 3)`` RGB, perhaps reduced.
    reference
        bool ``(H, W)`` of the same frame.
    name
        One of `CORRUPTIONS`.
    severity
        1 to 5.
    image_id, seed
        What chance depends on.

    Raises
    ------
    UsageError
        Unknown name or severity.
    """
    if name not in CORRUPTIONS:
        raise UsageError(f"there is no corruption '{name}'", hint=f"one of {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity} is not one of 1 to 5")
    digest = hashlib.sha256(f"{seed}/{image_id}/{name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    how = CORRUPTIONS[name]
    if how.move is not None:
        degrees, scale = how.move(rng, severity)
        moved = _warp(reference.astype(np.uint8) * 255, degrees, scale)
        return _warp(image, degrees, scale), moved >= 128
    return (image if how.change is None else how.change(rng, image, severity)), reference


def _warp(picture: NDArray[np.uint8], degrees: float, scale: float) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if scale < 1:  # a plain warp would alias
        small = max(1, round(width * scale)), max(1, round(height * scale))
        picture = np.asarray(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), np.uint8)
    rows, columns = picture.shape[:2]
    # From pixels of what is left to those of the frame; the centres of both coincide.
    ratio = 1.0 if scale < 1 else scale
    matrix = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), degrees, ratio)
    matrix[:, 2] += np.array([(width - columns) / 2, (height - rows) / 2])
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def _side(image: Image) -> int:
    return int(min(image.shape[:2]))


def _pick(severity: int, *values: float) -> float:
    return values[severity - 1]


def _blur(rng: np.random.Generator, image: Image, severity: int) -> Image:
    """Out of focus: a disc, as a lens makes it, not a Gaussian."""
    radius = _side(image) * _pick(severity, 0.005, 0.010, 0.018, 0.030, 0.045)
    return _filtered(image, _disc(radius))


def _motion(rng: np.random.Generator, image: Image, severity: int) -> Image:
    """A straight shake in a random direction."""
    reach = _side(image) * _pick(severity, 0.015, 0.03, 0.05, 0.08, 0.12)
    half = int(np.ceil(reach / 2)) + 1
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((8 * half + 4, 8 * half + 4), np.float32)  # four times as fine as the image's pixels
    middle = (kernel.shape[0] - 1) / 2
    step = 2 * reach * np.array((np.cos(angle), np.sin(angle)))
    ends = [tuple(int(v) for v in np.rint((middle + sign * step) * 16)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 4, cv2.LINE_8, 4)
    small = np.asarray(cv2.resize(kernel, (2 * half + 1, 2 * half + 1), interpolation=cv2.INTER_AREA))
    return _filtered(image, small.astype(np.float32))


def _jpeg(rng: np.random.Generator, image: Image, severity: int) -> Image:
    quality = int(_pick(severity, 30, 20, 14, 10, 7))
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _noise(rng: np.random.Generator, image: Image, severity: int) -> Image:
    """Sensor noise: the brighter, the stronger (shot noise), over a floor of its own (reading noise)."""
    strength = _pick(severity, 0.02, 0.04, 0.065, 0.10, 0.15)
    values = image.astype(np.float32) / 255
    spread = np.float32(strength) * np.sqrt(np.float32(0.25) + np.float32(0.75) * values)
    return _as_image(values + spread * rng.standard_normal(values.shape, dtype=np.float32))


def _brightness(rng: np.random.Generator, image: Image, severity: int) -> Image:
    """Under- or overexposure by so many stops, in linear light."""
    stops = _pick(severity, 0.4, 0.7, 1.0, 1.4, 1.8) * rng.choice((-1.0, 1.0))
    linear = np.power(image.astype(np.float32) / 255, 2.2)
    return _as_image(np.power(np.minimum(linear * np.float32(2**stops), 1.0), 1 / 2.2))


def _contrast(rng: np.random.Generator, image: Image, severity: int) -> Image:
    """A veil: every colour moves towards the mean colour."""
    left = np.float32(_pick(severity, 0.8, 0.65, 0.5, 0.38, 0.27))
    values = image.astype(np.float32) / 255
    mean = values.mean(axis=(0, 1))
    return _as_image(mean + left * (values - mean))


def _colour_cast(rng: np.random.Generator, image: Image, severity: int) -> Image:
    """Wrong white balance: one channel stronger, another weaker."""
    amount = _pick(severity, 0.05, 0.10, 0.15, 0.21, 0.28)
    gains = rng.permutation(np.array((1 + amount, 1.0, 1 - amount), np.float32))
    return _as_image(image.astype(np.float32) / 255 * gains)


def _layers(add: Callable[[np.random.Generator, Image], Image]) -> Change:
    """As many layers of an artefact as the severity says."""

    def change(rng: np.random.Generator, image: Image, severity: int) -> Image:
        for _ in range(severity):
            image = add(rng, image)
        return image

    return change


def _bubbles_and_gel(rng: np.random.Generator, image: Image) -> Image:
    return add_bubbles(rng, add_gel(rng, image))


def _vignette(rng: np.random.Generator, image: Image, severity: int) -> Image:
    """The tube of the dermatoscope: black outside a circle that narrows with severity."""
    height, width = image.shape[:2]
    half = 0.5 * float(np.hypot(height, width))
    radius = half * _pick(severity, 0.92, 0.82, 0.72, 0.62, 0.52)
    soft = half * rng.uniform(0.02, 0.2)
    middle = np.array((height - 1, width - 1)) / 2 + rng.uniform(-0.05, 0.05, 2) * half
    y, x = np.ogrid[:height, :width]
    outside = np.clip((np.hypot(y - middle[0], x - middle[1]) - radius) / soft + 0.5, 0, 1)
    return _as_image((image / 255 * (1 - outside[..., None])).astype(np.float32))


def _rotation(rng: np.random.Generator, severity: int) -> tuple[float, float]:
    return float(_pick(severity, 10, 20, 35, 60, 90) * rng.choice((-1.0, 1.0))), 1.0


def _scale(rng: np.random.Generator, severity: int) -> tuple[float, float]:
    """From further away: the lesion gets smaller and a black frame surrounds the picture."""
    return 0.0, _pick(severity, 0.85, 0.7, 0.55, 0.42, 0.3)


CORRUPTIONS: dict[str, Corruption] = {
    "blur": Corruption(_blur),
    "motion": Corruption(_motion),
    "jpeg": Corruption(_jpeg),
    "noise": Corruption(_noise),
    "brightness": Corruption(_brightness),
    "contrast": Corruption(_contrast),
    "colour_cast": Corruption(_colour_cast),
    "hair": Corruption(_layers(add_hair)),
    "ruler": Corruption(_layers(add_ruler)),
    "bubbles": Corruption(_layers(_bubbles_and_gel)),
    "ink": Corruption(_layers(add_ink)),
    "vignette": Corruption(_vignette),
    "rotation": Corruption(move=_rotation),
    "scale": Corruption(move=_scale),
}
"""The suite, in the order of tables."""


def _disc(radius: float) -> NDArray[np.float32]:
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    # The rim counts by how much of its pixels the disc covers.
    return np.asarray(np.clip(radius + 0.5 - np.hypot(x, y), 0, 1), np.float32)


def _filtered(image: Image, kernel: NDArray[np.float32]) -> Image:
    return np.asarray(
        cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101), np.uint8
    )


def _as_image(values: NDArray[np.float32]) -> Image:
    """Values in [0, 1] as an image."""
    return np.asarray(np.clip(np.rint(values * np.float32(255)), 0, 255), np.uint8)
