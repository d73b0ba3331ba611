"""From masks to what the loss compares with, and from logits back to masks.

Masks are ``(N, M, H, W)``: one for each channel of a network with sigmoid outputs, one for each class but
the background with softmax outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor


def make_target(masks: Tensor, softmax: bool) -> Tensor:
    """Target ``float (N, C, H, W)`` in [0, 1] for masks in [0, 1].

    For softmax outputs the channels sum to 1: where masks overlap (or share a border pixel) they share it
    by their values, and what is left is background, channel 0.
    """
    if not softmax:
        return masks
    total = masks.sum(1, keepdim=True)
    shared = masks / total.clamp(min=1)
    return torch.cat([(1 - total).clamp(min=0), shared], dim=1)


def lesion_probability(logits: Tensor, softmax: bool) -> Tensor:
    """Probability of lesion ``(N, H, W)``: of the first channel, or of any class but the background."""
    if not softmax:
        return torch.sigmoid(logits[:, 0])
    return 1 - torch.softmax(logits, dim=1)[:, 0]


def find_masks(logits: Tensor, softmax: bool) -> Tensor:
    """Masks ``bool (N, M, H, W)`` of logits ``(N, C, H, W)``: threshold 0.5, or the likeliest class."""
    if not softmax:
        return logits > 0
    best = logits.argmax(1, keepdim=True)
    return best == torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, 1, 1)
