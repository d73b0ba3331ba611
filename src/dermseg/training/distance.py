"""Distance maps of reference masks, made outside the graph on the CPU."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@torch.no_grad()
def signed_distance(target: Tensor) -> Tensor:
    """Distance of every pixel from the outline of its mask: negative inside, positive outside.

    Parameters
    ----------
    target
        ``(N, C, H, W)`` in [0, 1]; cut at one half.

    Returns
    -------
    Tensor
        ``float32 (N, C, H, W)`` on the same device, in shares of the longer side; 0 everywhere in a map
        without an outline. Pixels beside the outline are half a pixel from it.
    """
    masks = (target >= 0.5).to("cpu", torch.uint8).numpy()
    maps = np.zeros(masks.shape, np.float32)
    for index in np.ndindex(masks.shape[:2]):
        maps[index] = _signed(masks[index])
    maps /= max(masks.shape[-2:])
    return torch.from_numpy(maps).to(target.device)


def _signed(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    if not mask.any() or mask.all():
        return np.zeros(mask.shape, np.float32)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # both are distances between pixel centres: the outline runs half a pixel nearer
    signed: NDArray[np.float32] = np.where(mask > 0, 0.5 - inside, outside - 0.5).astype(np.float32)
    return signed
