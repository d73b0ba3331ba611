"""Preprocessing filters: what they are for, and that they leave the rest alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dermseg.images.filters import FILTERS, apply_filters, dullrazor, fft_denoise, find_hair, shades_of_grey


def skin(size: int = 256) -> np.ndarray:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 20, (size, size)).astype(np.float32), (0, 0), 4)
    image = np.array([205, 165, 145], np.float32) + texture[..., None]
    lesion = np.zeros((size, size), np.uint8)
    cv2.circle(lesion, (size // 2, size // 2), size // 5, 1, -1)
    image[lesion > 0] -= (70, 80, 80)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", [(256, 256), (1, 1), (5, 300)])
def test_every_filter_keeps_size_and_type_and_does_not_write_into_its_input(
    name: str, shape: tuple[int, int]
) -> None:
    image = cv2.resize(skin(), shape[::-1]).reshape(*shape, 3)
    before = image.copy()
    out = apply_filters(image, (name,))  # type: ignore[arg-type]
    assert (out.shape, out.dtype) == (image.shape, np.uint8)
    assert np.array_equal(image, before)


def test_dullrazor_removes_hairs_and_nothing_else() -> None:
    clean = skin()
    hairy = clean.copy()
    drawn = np.zeros(clean.shape[:2], np.uint8)
    for start, end in (((10, 20), (240, 90)), ((30, 250), (200, 10)), ((0, 180), (255, 200))):
        for canvas, colour in ((hairy, (45, 30, 25)), (drawn, 1)):
            cv2.line(canvas, start, end, colour, 2, cv2.LINE_AA)
    found = find_hair(hairy)
    assert found[drawn > 0].mean() > 0.95
    assert found.mean() < 0.1
    error = lambda a: np.abs(a.astype(int) - clean).mean()  # noqa: E731
    assert error(dullrazor(hairy)) < 0.25 * error(hairy)
    assert np.array_equal(dullrazor(clean), clean)


def test_shades_of_grey_undoes_coloured_light() -> None:
    image = skin()
    cast = np.clip(image * np.array([1.0, 0.8, 0.65]), 0, 255).round().astype(np.uint8)

    def colours(picture: np.ndarray) -> np.ndarray:
        return picture / picture.mean()  # the brightness of the light is not its colour

    assert np.abs(colours(cast) - colours(image)).mean() > 0.1
    assert np.abs(colours(shades_of_grey(cast)) - colours(shades_of_grey(image))).mean() < 0.01


def test_fft_denoise_keeps_shapes_and_takes_noise() -> None:
    clean = cv2.GaussianBlur(skin(), (0, 0), 3)
    noisy = np.clip(clean + np.random.default_rng(1).normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
    before, after = (np.abs(a.astype(int) - clean).mean() for a in (noisy, fft_denoise(noisy)))
    assert after < 0.5 * before
