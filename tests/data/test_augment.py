from __future__ import annotations

import cv2
import numpy as np

from dermseg.data.augment import Augmentation

STILL = Augmentation(
    rotate_degrees=0, scale=(1.0, 1.0), aspect=0, shift=0, flip=False, brightness=0, contrast=0, gamma=0,
    colour_cast=0, saturation=0, blur=0, noise=0, hair=0, vignette=0, ruler=0, bubbles=0,
)  # fmt: skip


def disc(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((size, size), np.uint8)
    cv2.circle(mask, (size // 2, size // 2), size // 4, 255, -1)
    image = np.full((size, size, 3), 200, np.uint8)
    image[mask > 0] = 60
    return image, mask


def test_nothing_switched_on_changes_nothing() -> None:
    image, mask = disc()
    out_image, out_mask = STILL(np.random.default_rng(0), image, mask, 64)
    assert np.array_equal(out_image, image)
    assert np.array_equal(out_mask, mask)


def test_image_and_mask_move_together() -> None:
    image, mask = disc()
    geometry = Augmentation(
        **{**vars(STILL), "rotate_degrees": 180, "scale": (0.6, 1.6), "shift": 0.2, "flip": True}
    )
    for seed in range(20):
        out_image, out_mask = geometry(np.random.default_rng(seed), image, mask, 80)
        dark, lesion = out_image[..., 0] < 130, out_mask >= 128
        assert (dark ^ lesion).mean() < 0.01


def test_the_result_depends_on_the_generator_only() -> None:
    image, mask = disc()
    full = Augmentation(hair=1, vignette=1, ruler=1, bubbles=1, blur=1, noise=1)
    first, second, other = (full(np.random.default_rng(s), image, mask, 48)[0] for s in (5, 5, 6))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert first.shape == (48, 48, 3)
    assert first.dtype == np.uint8


def test_noise_keeps_the_mean_and_the_mask() -> None:
    image, mask = disc()
    noisy = Augmentation(**{**vars(STILL), "noise": 1})
    for seed in range(6):
        out_image, out_mask = noisy(np.random.default_rng(seed), image, mask, 64)
        skin = out_image[mask == 0].astype(float)
        assert 2 < skin.std() < 35 and abs(skin.mean() - 200) < 4
        assert np.array_equal(out_mask, mask)
