"""The connected parts of a mask and how large each is."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def components(mask: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label the 8-connected parts of a 0/1 mask.

    Not OpenCV's labelling with statistics: that takes seven times as long, for boxes and centres that nobody
    here asks for.

    Returns
    -------
    labels
        ``int32 (H, W)``: 0 outside, then 1, 2, ... in reading order.
    areas
        ``int64 (n,)``: pixels of each part.
    """
    found, raw = cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)
    labels = np.asarray(raw, np.int32)
    if found <= 2:  # one lesion or none: nothing to tell apart
        return labels, np.full(found - 1, cv2.countNonZero(mask), np.int64)
    return labels, np.bincount(labels.ravel(), minlength=found)[1:]
