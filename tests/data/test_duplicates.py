"""The same photograph is found again after what people do to photographs; different ones stay apart."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dermseg.data.duplicates import find_duplicates, fingerprint

Image = NDArray[np.uint8]


def photograph(seed: int, height: int = 300, width: int = 400) -> Image:
    """A dark blot in the middle of textured skin, with hairs: alike at a glance, different in detail."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (215, 170, 150), np.float32)
    image += cv2.GaussianBlur(rng.normal(0, 60, (height, width, 1)).astype(np.float32), (0, 0), 4)[..., None]
    axes = (int(rng.integers(50, 70)), int(rng.integers(45, 65)))
    cv2.ellipse(image, (width // 2, height // 2), axes, 0, 0, 360, (110.0, 65.0, 45.0), -1)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    for x0, y0, x1, y1 in rng.integers(0, 300, (12, 4)):
        cv2.line(image, (int(x0), int(y0)), (int(x1), int(y1)), (60.0, 40.0, 30.0), 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def recompress(image: Image) -> Image:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


CHANGES: dict[str, Callable[[Image], Image]] = {
    "half size": lambda x: np.asarray(
        cv2.resize(x, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8
    ),
    "recompressed": recompress,
    "darker, other colour": lambda x: np.asarray(np.clip(x * (0.8, 0.7, 0.6) + 5, 0, 255), np.uint8),
    "turned by 90": lambda x: np.rot90(x).copy(),
    "turned by 180": lambda x: np.rot90(x, 2).copy(),
    "turned by 270": lambda x: np.rot90(x, 3).copy(),
    "mirrored": lambda x: x[:, ::-1].copy(),
    "mirrored and turned": lambda x: np.rot90(x[:, ::-1]).copy(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_copy_is_found(change: Callable[[Image], Image]) -> None:
    image = photograph(1)
    (pair,) = find_duplicates([fingerprint(photograph(2)), fingerprint(image), fingerprint(change(image))])
    assert (pair.first, pair.second) == (1, 2)


def test_different_lesions_stay_apart() -> None:
    assert find_duplicates([fingerprint(photograph(seed)) for seed in range(60)]) == []


def test_even_images_are_not_duplicates() -> None:
    """Nothing can be said about images without detail, so nothing is."""
    even = [np.full((50, 50, 3), value, np.uint8) for value in (0, 100, 100, 255)]
    assert find_duplicates([fingerprint(image) for image in even]) == []
    assert find_duplicates([]) == []
