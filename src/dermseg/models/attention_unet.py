"""Attention U-Net (Oktay et al. 2018, arXiv:1804.03999; doi:10.48550/arXiv.1804.03999).

A U-Net whose skip connections pass through grid attention: the coarser decoder map says where the skip is
worth looking at. Padded convolutions and batch norm as in ``unet``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dermseg.models.blocks import DoubleConv, Upsampling, focal_bias_, init_weights, resize_to, upsampler
from dermseg.models.unet_encoder import UNetEncoder


class AttentionGate(nn.Module):
    """Additive grid attention, computed at the resolution of the gate (equations 1 and 2, figure 2).

    ``skip (N, C, H, W)`` is multiplied by one coefficient in (0, 1) per pixel, decided together with
    ``gate (N, G, H/2, W/2)``, then mixed by a 1x1 convolution.
    """

    def __init__(self, channels: int, gate_channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.skip = nn.Conv2d(channels, inner, 2, stride=2, bias=False)
        self.gate = nn.Conv2d(gate_channels, inner, 1)
        self.psi = nn.Conv2d(inner, 1, 1)
        self.mix = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def coefficients(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Attention ``(N, 1, h, w)`` in (0, 1) at the resolution of the gate."""
        attended = resize_to(self.skip(skip), gate) + self.gate(gate)
        return torch.sigmoid(self.psi(F.relu(attended)))

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        mixed: Tensor = self.mix(skip * resize_to(self.coefficients(skip, gate), skip))
        return mixed


class AttentionUNet(UNetEncoder):
    """U-Net with an attention gate on every skip connection.

    Parameters
    ----------
    classes
        Number of output channels (logits).
    widths
        Channels per level, full resolution first.
    dropout
        Probability of dropping a whole channel at the bottleneck.
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
        super().__init__("attention_unet", widths, dropout)
        self.gates, self.up, self.merge = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for below, level in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up, channels = upsampler(below, level, upsample)
            self.gates.append(AttentionGate(level, below))
            self.up.append(up)
            self.merge.append(DoubleConv(level + channels, level))
        self.head = nn.Conv2d(widths[0], classes, 1)
        init_weights(self)
        focal_bias_(self.head)

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits ``(N, classes, *size)`` from the maps of ``encode``."""
        *skips, x = features
        x = self.dropout(x)
        for gate, up, merge, skip in zip(self.gates, self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat([gate(skip, x), resize_to(up(x), skip)], dim=1))
        logits: Tensor = self.head(x)
        return logits

    def feature_layers(self) -> dict[str, nn.Module]:
        """Encoder levels, bottleneck, then gate and merged map of each decoder level."""
        named = self.encoder_layers()
        for i, (gate, merge) in enumerate(zip(self.gates, self.merge, strict=True), start=1):
            named |= {f"gate_{i}": gate, f"decoder_{i}": merge}
        return named
