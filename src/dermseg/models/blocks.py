"""Building blocks that several networks share."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dermseg.errors import ConfigError

_LESION_SHARE = 0.2  # of the pixels of a photograph


class ConvBnRelu(nn.Sequential):
    """3x3 (or ``kernel``) convolution without bias, batch norm, ReLU; keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class DoubleConv(nn.Sequential):
    """Two ``ConvBnRelu`` in a row, the unit of the U-Net family."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(ConvBnRelu(in_channels, out_channels), ConvBnRelu(out_channels, out_channels))


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 convolution, then 1x1; each with batch norm and ReLU (Howard 2017, arXiv:1704.04861)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Sequential(
                nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
                nn.BatchNorm2d(in_channels),
                nn.ReLU(inplace=True),
            ),
            ConvBnRelu(in_channels, out_channels, kernel=1),
        )


Upsampling = Literal["transposed", "bilinear"]


def upsampler(below: int, level: int, mode: Upsampling) -> tuple[nn.Module, int]:
    """The layer from ``below`` channels to twice the size, and how many channels it gives.

    ``transposed`` learns a 2x2 transposed convolution to ``level`` channels. ``bilinear`` has nothing to
    learn and keeps the channels: ``resize_to`` before the skip connection does all of it.

    Raises
    ------
    ConfigError
        Another mode.
    """
    if mode == "transposed":
        return nn.ConvTranspose2d(below, level, 2, stride=2), level
    if mode == "bilinear":
        return nn.Identity(), below
    raise ConfigError(f"upsample is '{mode}'", hint="use transposed or bilinear")


def resize_to(x: Tensor, reference: Tensor) -> Tensor:
    """Resize ``x`` bilinearly to the height and width of ``reference``.

    Used before every skip connection so that odd sizes need no padding by the caller.
    """
    if x.shape[-2:] == reference.shape[-2:]:
        return x
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)


def init_weights(module: nn.Module) -> None:
    """He initialisation (He 2015, doi:10.1109/ICCV.2015.123) for every convolution below it."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def focal_bias_(head: nn.Conv2d) -> None:
    """Start the output at the share of lesion pixels, so that training does not begin by unlearning 0.5."""
    if head.bias is not None:
        with torch.no_grad():
            head.bias.fill_(math.log(_LESION_SHARE / (1 - _LESION_SHARE)))
