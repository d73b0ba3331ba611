"""Grad-CAM for segmentation.

Selvaraju et al. 2017 (doi:10.1109/ICCV.2017.74) weight the feature maps of a layer by the mean gradient of a
class score and keep what is positive. For segmentation the score is the sum of the logits over a region of
the output (Vinogradova, Dibrov and Myers 2020, doi:10.1609/aaai.v34i10.7244).

It shows where a layer's features push the answer up. It does not say that the answer is right.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dermseg.errors import UsageError
from dermseg.explain.network import feature_layers

# A hook sees whatever goes through its layer: of two images at once each would get the other's features.
_one_at_a_time = threading.Lock()


def grad_cam(
    model: nn.Module, x: Tensor, layer: str, region: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Grad-CAM of one image. Threads may share the model; they take turns.

    Parameters
    ----------
    model
        In evaluation mode; ``(1, 3, H, W)`` to logits ``(1, 1, H, W)``.
    x
        Network input ``(1, 3, H, W)``.
    layer
        One of ``feature_layers(model)``.
    region
        ``bool (H, W)``: output pixels whose logits are explained. None is where the logit is above 0, or
        everywhere when that is nowhere.

    Returns
    -------
    ndarray
        ``float32 (h, w)``, the layer's own size, not negative and not normalised.

    Raises
    ------
    UsageError
        No such layer, or a region of another size.
    """
    layers = feature_layers(model)
    if layer not in layers:
        raise UsageError(f"the network has no layer '{layer}'", hint=f"it has {', '.join(layers)}")
    features: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        # a leaf of its own, so that gradients exist even if no parameter asks for them
        features.append(output.detach().requires_grad_())
        return features[-1]

    with _one_at_a_time:
        hook = layers[layer].register_forward_hook(keep)
        try:
            with torch.enable_grad():
                logits = model(x)[0, 0]
                score = _score(logits, region)
                (gradient,) = torch.autograd.grad(score, features[-1])
        finally:
            hook.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam = (weights * features[-1].detach()).sum(dim=1).clamp(min=0)[0]
    return cam.numpy().astype(np.float32)


def _score(logits: Tensor, region: NDArray[np.bool_] | None) -> Tensor:
    if region is None:
        chosen = logits.detach() > 0
        return logits[chosen].sum() if bool(chosen.any()) else logits.sum()
    if region.shape != tuple(logits.shape):
        raise UsageError(f"the region is {region.shape}, the network's output {tuple(logits.shape)}")
    return logits[torch.from_numpy(region)].sum()
