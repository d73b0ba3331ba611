"""How far an exported network is from the one that was trained, on real images."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from dermseg.export.onnx import INPUT_NAME


def run_torch(model: nn.Module, inputs: NDArray[np.float32], batch: int = 8) -> NDArray[np.float32]:
    """Probabilities ``(N, C, H, W)`` of the torch network."""
    with torch.inference_mode():
        parts = [
            torch.sigmoid(model(torch.from_numpy(inputs[i : i + batch]))).numpy()
            for i in range(0, len(inputs), batch)
        ]
    return np.concatenate(parts)


def run_onnx(data: bytes, inputs: NDArray[np.float32], batch: int = 8) -> NDArray[np.float32]:
    """Probabilities ``(N, C, H, W)`` of an ONNX file on the CPU."""
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {INPUT_NAME: inputs[i : i + batch]})[0] for i in range(0, len(inputs), batch)]
    logits = np.concatenate(parts)
    probability: NDArray[np.float32] = 1 / (1 + np.exp(-logits))
    return probability


def compare(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    masks: NDArray[np.bool_],
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Parity figures of ``candidate`` against ``reference`` probabilities ``(N, 1, H, W)``.

    Returns
    -------
    dict
        Largest and mean absolute difference of the probability, share of mask pixels that flip at
        ``threshold``, and mean Dice of both against ``masks (N, H, W)``.
    """
    difference = np.abs(reference - candidate)
    a, b = reference[:, 0] >= threshold, candidate[:, 0] >= threshold
    return {
        "images": len(reference),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "flipped_pixels": float((a != b).mean()),
        "dice_torch": _dice(a, masks),
        "dice": _dice(b, masks),
    }


def _dice(found: NDArray[np.bool_], masks: NDArray[np.bool_]) -> float:
    overlap = (found & masks).sum((1, 2))
    total = found.sum((1, 2)) + masks.sum((1, 2))
    return float(np.where(total > 0, 2 * overlap / np.maximum(total, 1), 1.0).mean())
