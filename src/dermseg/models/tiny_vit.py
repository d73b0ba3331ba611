"""TinyViT-5M as it stands in MobileSAM: a small hierarchical transformer that has learnt to see outlines.

Architecture: Wu 2022 (arXiv:2207.10666); weights: Zhang 2023 (arXiv:2306.14289), a TinyViT taught by the
image encoder of Segment Anything, whose last stage stays at stride 16. They are the file ``mobile_sam.pt``
(Apache-2.0), which ``DERMSEG_MOBILE_SAM`` names; names of modules here are those in that file.

Convolutions take the first stage, attention within windows the others. Windows are padded at the right and
the bottom where the size does not divide; 224 pixels need no padding anywhere.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dermseg.errors import ConfigError, ModelError
from dermseg.inference.session import first_line
from dermseg.models.encoders import Encoder

NAME = "tiny_vit"
PLACE = "DERMSEG_MOBILE_SAM"

_WIDTHS = (64, 128, 160, 320)
_DEPTHS = (2, 2, 6, 2)
_WINDOWS = (7, 7, 14, 7)  # the first is not used: that stage has convolutions
_HEAD = 32  # channels of a head


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch norm."""

    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(cout))


class InvertedBlock(nn.Module):
    """Expand, depthwise, project, with a residual before the last activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, 4 * width)
        self.conv2 = ConvNorm(4 * width, 4 * width, 3, groups=4 * width)
        self.conv3 = ConvNorm(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.conv3(y))


class Merging(nn.Module):
    """From one stage to the next: other width, half the size (or the same)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(cin, cout)
        self.conv2 = ConvNorm(cout, cout, 3, stride, groups=cout)
        self.conv3 = ConvNorm(cout, cout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return y


class Attention(nn.Module):
    """Attention among the positions of a window, with a learnt bias per distance along both axes."""

    index: Tensor

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.heads = width // _HEAD
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(self.heads, window * window))
        position = torch.arange(window * window)
        rows, columns = position // window, position % window
        # the published order: distances along rows first
        index = (rows[:, None] - rows).abs() * window + (columns[:, None] - columns).abs()
        self.register_buffer("index", index, persistent=False)

    @torch.no_grad()
    def fold_(self) -> None:
        """Keep the bias of every pair of positions: nothing is looked up for an image."""
        if self.attention_biases.ndim == 2:
            self.attention_biases = nn.Parameter(self.attention_biases[:, self.index])

    def forward(self, x: Tensor) -> Tensor:
        """``(windows, positions, channels)`` in and out."""
        count, positions, width = x.shape
        qkv = self.qkv(self.norm(x)).view(count, positions, self.heads, 3 * _HEAD).transpose(1, 2)
        q, k, v = qkv.split(_HEAD, dim=3)
        biases = self.attention_biases
        bias = biases if biases.ndim == 3 else biases[:, self.index]
        weights = ((q * _HEAD**-0.5) @ k.transpose(2, 3) + bias).softmax(dim=-1)
        y: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(count, positions, width))
        return y


class Mlp(nn.Module):
    """Two linear layers on every position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return y


class Block(nn.Module):
    """Attention in windows, a depthwise convolution across their borders, an MLP."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(width, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` in and out."""
        n, c, h, w = x.shape
        side = self.window
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -w % side, 0, -h % side))
        rows, columns = padded.shape[1] // side, padded.shape[2] // side
        windows = padded.reshape(n, rows, side, columns, side, c).transpose(2, 3)
        y = self.attn(windows.reshape(-1, side * side, c)).view(n, rows, columns, side, side, c)
        y = y.transpose(2, 3).reshape(n, rows * side, columns * side, c)[:, :h, :w]
        x = self.local_conv(x + y.permute(0, 3, 1, 2))
        mixed: Tensor = self.mlp(x.permute(0, 2, 3, 1))
        return x + mixed.permute(0, 3, 1, 2)


class Stem(nn.Module):
    """From pixels to stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, width // 2, 3, 2), nn.GELU(), ConvNorm(width // 2, width, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.seq(x)
        return y


class Stage(nn.Module):
    """Blocks, then the way to the next stage, where there is one."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        width, last = _WIDTHS[stage], stage == len(_WIDTHS) - 1
        self.blocks = nn.Sequential(
            *(Block(width, _WINDOWS[stage]) if stage else InvertedBlock(width) for _ in range(_DEPTHS[stage]))
        )
        self.downsample = (
            nn.Identity() if last else Merging(width, _WIDTHS[stage + 1], 1 if stage == 2 else 2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map of this stage, and what the next one gets."""
        own: Tensor = self.blocks(x)
        return own, self.downsample(own)


class TinyViT(Encoder):
    """Feature maps at strides 4, 8, 16 and once more 16 (where other encoders have stride 32)."""

    channels = _WIDTHS

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = Stem(_WIDTHS[0])
        self.layers = nn.ModuleList(Stage(i) for i in range(len(_WIDTHS)))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        maps = []
        for stage in self.layers:
            own, x = stage(x)
            maps.append(own)
        return maps


def unfold_biases(full: Tensor) -> Tensor:
    """The biases per distance from those of all pairs, which ``fold_`` makes: the first position's row."""
    return full[:, 0]


def find_mobile_sam() -> Path:
    """The file that ``DERMSEG_MOBILE_SAM`` names.

    Raises
    ------
    ConfigError
        It names none, or one that is not there.
    """
    named = os.environ.get(PLACE)
    hint = "python benchmarks/mobile_sam.py fetches mobile_sam.pt (40 MB) and says what to set"
    if not named:
        raise ConfigError(f"pretrained: true with '{NAME}' needs MobileSAM's weights: set {PLACE}", hint=hint)
    if not Path(named).is_file():
        raise ConfigError(f"{PLACE} names no file", file=Path(named), hint=hint)
    return Path(named)


def load_mobile_sam(encoder: TinyViT) -> None:
    """Fill ``encoder`` with the weights of MobileSAM's image encoder.

    Raises
    ------
    ConfigError
        The file is not there.
    ModelError
        It is another file.
    """
    path = find_mobile_sam()
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
        encoder.load_state_dict({name: published[f"image_encoder.{name}"] for name in encoder.state_dict()})
    except Exception as error:  # torch has many kinds
        raise ModelError(
            f"these are not MobileSAM's weights: {first_line(error)}",
            file=path,
            hint="mobile_sam.pt of MobileSAM, or let benchmarks/mobile_sam.py fetch it",
        ) from None
