"""Pictures of a result."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dermseg.inference.pictures import resize_mask


@pytest.mark.parametrize("size", [(150, 200), (117, 200), (1, 1), (3000, 4000), (712, 1072)])
def test_a_mask_at_any_size_is_the_mean_of_what_a_pixel_covers(size: tuple[int, int]) -> None:
    y, x = np.mgrid[:3000, :4000]
    mask = ((y - 1400) / 900) ** 2 + ((x - 2100) / 1300) ** 2 < 1
    small = resize_mask(mask, size)
    share = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    assert small.shape == size and small.dtype == np.bool_
    # differences are where about half of the pixel is lesion
    assert np.abs(share[small != (share >= 0.5)] - 0.5).max(initial=0.0) < 0.2
