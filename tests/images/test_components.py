from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dermseg.images.components import components


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_labels_and_areas_are_those_of_opencv(seed: int, height: int, width: int, share: float) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    labels, areas = components(mask)
    _, wanted, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    assert np.array_equal(labels, wanted)
    assert np.array_equal(areas, stats[1:, cv2.CC_STAT_AREA])
