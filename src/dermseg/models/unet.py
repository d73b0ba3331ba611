"""The classic U-Net (Ronneberger, Fischer and Brox 2015, doi:10.1007/978-3-319-24574-4_28).

As it is commonly trained today: padded convolutions, batch norm, transposed convolutions for
upsampling. With widths 64-128-256-512-1024 and one output it has 31,037,633 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dermseg.models.blocks import DoubleConv, Upsampling, focal_bias_, init_weights, resize_to, upsampler
from dermseg.models.unet_encoder import UNetEncoder


class UNet(UNetEncoder):
    """U-Net with configurable widths.

    Parameters
    ----------
    classes
        Number of output channels (logits).
    widths
        Channels per level, full resolution first.
    dropout
        Probability of dropping a whole channel at the bottleneck and in the lowest decoder stage.
    upsample
        ``transposed`` (learnt 2x2 convolutions) or ``bilinear`` (nothing to learn).
    """

    def __init__(
        self,
        classes: int = 1,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        dropout: float = 0.2,
        upsample: Upsampling = "transposed",
    ) -> None:
        super().__init__("unet", widths, dropout)
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        for below, level in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up, channels = upsampler(below, level, upsample)
            self.up.append(up)
            self.merge.append(DoubleConv(level + channels, level))
        self.head = nn.Conv2d(widths[0], classes, 1)
        init_weights(self)
        focal_bias_(self.head)

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits ``(N, classes, *size)`` from the maps of ``encode``."""
        *skips, x = features
        x = self.dropout(x)
        for i, (up, merge, skip) in enumerate(zip(self.up, self.merge, reversed(skips), strict=True)):
            x = merge(torch.cat([skip, resize_to(up(x), skip)], dim=1))
            if i == 0:
                x = self.dropout(x)
        logits: Tensor = self.head(x)
        return logits

    def feature_layers(self) -> dict[str, nn.Module]:
        """Encoder levels, bottleneck, decoder levels."""
        return self.encoder_layers() | {f"decoder_{i}": block for i, block in enumerate(self.merge, start=1)}
