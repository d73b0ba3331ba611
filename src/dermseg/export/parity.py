"""How far a stored network is from the one that was trained, on real images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dermseg.inference.postprocess import to_probability
from dermseg.inference.session import Session

Floats = NDArray[np.float32]
_BATCH = 8


def run_torch(model: nn.Module, inputs: Floats) -> Floats:
    """Logits ``(N, C, h, w)`` of a torch network for ``(N, 3, H, W)``."""
    with torch.inference_mode():
        parts = [
            model(torch.from_numpy(inputs[i : i + _BATCH])).numpy() for i in range(0, len(inputs), _BATCH)
        ]
    return np.concatenate(parts)


def run_session(session: Session, inputs: Floats) -> Floats:
    """Logits ``(N, C, h, w)`` of a stored network."""
    return np.concatenate([session(inputs[i : i + _BATCH]) for i in range(0, len(inputs), _BATCH)])


def lesion_probability(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probability of lesion ``(N, h, w)``: the first channel, as ``Model.infer`` takes it."""
    return to_probability(logits[:, 0], temperature)


def compare(reference: Floats, candidate: Floats, threshold: float) -> dict[str, Any]:
    """Parity figures of two probability maps of the same shape ``(N, h, w)``.

    Returns
    -------
    dict
        Number of images, largest and mean absolute difference of the probability, and the share of pixels
        that change sides at ``threshold``.
    """
    difference = np.abs(reference - candidate)
    return {
        "images": len(reference),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean(dtype=np.float64)),
        "flipped_pixels": float(((reference >= threshold) != (candidate >= threshold)).mean()),
    }
