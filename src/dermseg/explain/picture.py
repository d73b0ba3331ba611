"""From an image file to Grad-CAM overlays and arrays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dermseg.explain.gradcam import grad_cam
from dermseg.files import atomic_write
from dermseg.images.load import load_image, load_view
from dermseg.images.masks import encode
from dermseg.images.overlay import draw_overlay
from dermseg.images.sources import ImageSource
from dermseg.inference.pictures import resize_mask
from dermseg.inference.predictor import Model
from dermseg.uncertainty.margins import shrink_mask

_MAX_SIDE = 1024


def explain_image(
    model: Model, network: nn.Module, source: ImageSource, layers: Sequence[str], stem: Path
) -> list[str]:
    """Write ``STEM.LAYER.png`` and ``STEM.LAYER.npy`` for one image; return the layers whose map is empty.

    Raises
    ------
    ImageError
        The image cannot be read.
    """
    loaded = load_image(source, min_side=model.min_side)  # as ``dermseg segment`` does: the same outline
    result = model.segment(loaded)
    view = load_view(source, loaded)
    outline = resize_mask(result.mask, view.shape[:2])
    x = model.prepare(loaded.pixels)
    empty = []
    for layer in layers:
        cam = explain_outline(network, x, result.mask, layer)
        if not cam.any():
            empty.append(layer)
        data = io.BytesIO()
        np.save(data, cam)
        atomic_write(stem.with_name(f"{stem.name}.{layer}.npy"), data.getvalue())
        picture = draw_overlay(
            heat(view, cam),
            outline,
            legend=("outline", f"colours: Grad-CAM, {layer}"),
            max_side=_MAX_SIDE,
        )
        atomic_write(
            stem.with_name(f"{stem.name}.{layer}.png"),
            encode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), []),
        )
    return empty


def explain_outline(
    network: nn.Module, network_input: NDArray[np.float32], mask: NDArray[np.bool_], layer: str
) -> NDArray[np.float32]:
    """Grad-CAM of one layer for an outline; for what the network itself finds where the mask is empty.

    Parameters
    ----------
    network_input
        ``float32 (3, H, W)``, as ``Model.prepare`` makes it.
    mask
        ``bool``, of the image's own size.

    Returns
    -------
    ndarray
        ``float32 (h, w)``, see ``grad_cam``.
    """
    region = shrink_mask(mask, (network_input.shape[1], network_input.shape[2]))
    return grad_cam(network, torch.from_numpy(network_input[None]), layer, region if region.any() else None)


def heat(image: NDArray[np.uint8], cam: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A map laid over an image: transparent where it is 0, viridis up to its largest value.

    Parameters
    ----------
    image
        ``uint8 (H, W, 3)`` RGB.
    cam
        ``float32 (h, w)``, not negative.
    """
    peak = float(cam.max())
    share = cam / peak if peak > 0 else cam
    wide = cv2.resize(share, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colour = cv2.applyColorMap((wide * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    alpha = (0.75 * np.minimum(1.0, 1.5 * wide))[..., None]
    out: NDArray[np.uint8] = (image * (1 - alpha) + colour * alpha).round().astype(np.uint8)
    return out
