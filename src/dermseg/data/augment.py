"""One joint random transform of image and mask, on uint8 with OpenCV.

Geometry is a single affine warp straight to the training size (no second resampling); colour is a
single look-up table per channel. Each image draws from a generator of its own, so the result depends
on (seed, epoch, position) and not on which thread made it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.artefacts import add_bubbles, add_hair, add_ruler, add_vignette

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the transform; the fields are those of the ``augmentation`` section of a run."""

    rotate_degrees: float = 180.0
    scale: tuple[float, float] = (0.85, 1.4)
    aspect: float = 0.1
    shift: float = 0.1
    flip: bool = True
    brightness: float = 0.12
    contrast: float = 0.25
    gamma: float = 0.2
    colour_cast: float = 0.08
    saturation: float = 0.3
    blur: float = 0.1
    noise: float = 0.0
    hair: float = 0.12
    vignette: float = 0.12
    ruler: float = 0.04
    bubbles: float = 0.04

    def __call__(self, rng: np.random.Generator, image: Image, mask: Image, size: int) -> tuple[Image, Image]:
        """Transform ``image (H, W, 3)`` and ``mask (H, W)`` together to ``(size, size)``."""
        matrix = self._matrix(rng, image.shape[0], image.shape[1], size)
        # reflection keeps skin beside skin; black corners come from the vignette instead
        image = cv2.warpAffine(  # type: ignore[assignment]
            image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        mask = cv2.warpAffine(  # type: ignore[assignment]
            mask, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        return self._appearance(rng, image), mask

    def _matrix(self, rng: np.random.Generator, h: int, w: int, size: int) -> NDArray[np.float32]:
        angle = np.deg2rad(rng.uniform(-self.rotate_degrees, self.rotate_degrees))
        scale = np.exp(rng.uniform(*np.log(self.scale)))
        stretch = np.exp(rng.uniform(-self.aspect, self.aspect))
        flip = -1.0 if self.flip and rng.random() < 0.5 else 1.0
        cos, sin = np.cos(angle), np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([flip * scale * stretch, scale / stretch])
        linear = linear @ np.diag([size / w, size / h])
        shift = rng.uniform(-self.shift, self.shift, 2) * size
        centre_in, centre_out = np.array([(w - 1) / 2, (h - 1) / 2]), np.full(2, (size - 1) / 2)
        offset = centre_out + shift - linear @ centre_in
        return np.column_stack([linear, offset]).astype(np.float32)

    def _appearance(self, rng: np.random.Generator, image: Image) -> Image:
        # artefacts lie on the skin, so they come before camera and light
        for probability, add in (
            (self.hair, add_hair),
            (self.ruler, add_ruler),
            (self.bubbles, add_bubbles),
            (self.vignette, add_vignette),
        ):
            if probability and rng.random() < probability:
                image = add(rng, image)
        if self.saturation:
            keep = 1 + rng.uniform(-self.saturation, self.saturation)
            grey = np.array([0.299, 0.587, 0.114]) * (1 - keep)
            image = cv2.transform(image, np.eye(3) * keep + grey)  # type: ignore[assignment]
        image = cv2.LUT(image, self._table(rng))  # type: ignore[assignment]
        if self.blur and rng.random() < self.blur:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, max(0.5, 0.008 * image.shape[0])))  # type: ignore[assignment]
        if self.noise and rng.random() < self.noise:
            image = _add_noise(rng, image)
        return image

    def _table(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Look-up table ``(1, 256, 3)`` of brightness, contrast, gamma and colour cast."""
        x = np.linspace(0, 1, 256)[:, None]
        gain = np.exp(rng.uniform(-self.contrast, self.contrast)) * np.exp(
            rng.uniform(-self.colour_cast, self.colour_cast, 3)
        )
        gamma = np.exp(rng.uniform(-self.gamma, self.gamma))
        offset = rng.uniform(-self.brightness, self.brightness)
        y = (x**gamma - 0.5) * gain + 0.5 + offset
        table: NDArray[np.uint8] = (np.clip(y, 0, 1) * 255).round().astype(np.uint8)[None]
        return table


def _add_noise(rng: np.random.Generator, image: Image) -> Image:
    """Noise of a sensor in little light: grains of one to three pixels, the same at any size of training."""
    h, w = image.shape[:2]
    grain = int(rng.integers(1, 4))
    field = rng.standard_normal((-(-h // grain), -(-w // grain), 3), dtype=np.float32)
    field *= np.float32(rng.uniform(4, 30))
    if grain > 1:
        field = cv2.resize(field, (w, h), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    noisy: Image = np.clip(image + field, 0, 255).astype(np.uint8)
    return noisy
