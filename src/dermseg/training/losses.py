"""Losses on logits ``(N, C, H, W)`` against targets of the same shape in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - soft Dice per image and class, averaged (Milletari 2016, doi:10.1109/3DV.2016.79).

    Averaged per image, not over the batch, so that small lesions weigh as much as large ones.
    """
    probability = torch.sigmoid(logits.float())
    dims = (-2, -1)
    overlap = (probability * target).sum(dims)
    total = probability.sum(dims) + target.sum(dims)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def segmentation_loss(logits: Tensor, target: Tensor, bce: float = 1.0, dice: float = 1.0) -> Tensor:
    """Weighted sum of binary cross-entropy and soft Dice."""
    loss = logits.new_zeros((), dtype=torch.float32)
    if bce:
        loss = loss + bce * F.binary_cross_entropy_with_logits(logits.float(), target)
    if dice:
        loss = loss + dice * soft_dice_loss(logits, target)
    return loss
