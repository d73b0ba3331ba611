"""Two outlines of one image against each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.metrics import dice, jaccard


@dataclass(frozen=True, slots=True)
class Agreement:
    """Overlap of two masks, and how much of the image is in one of them only (shares in [0, 1])."""

    dice: float
    jaccard: float
    only_first: float
    only_second: float


def compare_masks(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Agreement:
    """How far two masks ``bool (H, W)`` agree.

    Raises
    ------
    MaskError
        They differ in size.
    """
    counts = count_pixels(first, second)
    return Agreement(dice(counts), jaccard(counts), counts.fp / counts.total, counts.fn / counts.total)
