"""TransUNet (Chen et al. 2021, arXiv:2102.04306; doi:10.48550/arXiv.2102.04306).

R50-ViT-B/16 as published: three stages of a ResNet with weight-standardised convolutions and group norm
(Kolesnikov 2020, doi:10.1007/978-3-030-58558-7_29) down to stride 16, a ViT-B (Dosovitskiy 2021,
arXiv:2010.11929) over its positions, and a cascaded decoder with skips at strides 8, 4 and 2.

Two departures: the max pool of the stem is padded, so that strides divide evenly, and the position
embedding is resampled bilinearly to whatever size comes in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dermseg.errors import ConfigError
from dermseg.models.blocks import ConvBnRelu, DoubleConv, focal_bias_, init_weights, resize_to
from dermseg.models.network import SegmentationNetwork

_STRIDE = 16


class StandardizedConv(nn.Conv2d):
    """Convolution whose filters have mean 0 and variance 1 (Qiao 2019, arXiv:1903.10520)."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self._standardized()
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    @torch.no_grad()
    def fold_(self) -> None:
        """Become the plain convolution with these filters: nothing of them is computed for an image."""
        self.weight.copy_(self._standardized())
        self.__class__ = nn.Conv2d  # type: ignore[assignment]

    def _standardized(self) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return (self.weight - mean) / torch.sqrt(variance + 1e-5)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions with group norm."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        mid = cout // 4
        self.layers = nn.Sequential(
            StandardizedConv(cin, mid, 1, bias=False),
            _norm(mid),
            nn.ReLU(inplace=True),
            StandardizedConv(mid, mid, 3, stride, 1, bias=False),
            _norm(mid),
            nn.ReLU(inplace=True),
            StandardizedConv(mid, cout, 1, bias=False),
            _norm(cout),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(
                StandardizedConv(cin, cout, 1, stride, bias=False), nn.GroupNorm(cout, cout)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and MLP over tokens ``(N, T, hidden)``."""

    def __init__(self, hidden: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps=1e-6), nn.LayerNorm(hidden, eps=1e-6)
        self.qkv, self.proj = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, mlp),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp, hidden),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, hidden = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, hidden)
        x = x + self.proj(attended)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class TransUNet(SegmentationNetwork):
    """Hybrid CNN and vision transformer encoder, cascaded decoder with skips.

    Parameters
    ----------
    classes
        Number of output channels (logits).
    image_size
        Side in pixels for which the position embedding is made; other sizes resample it.
    hidden, layers, heads, mlp
        Width, depth, attention heads and inner width of the transformer; the defaults are ViT-B.
    cnn_width
        Channels of the stem; the three CNN stages have 4, 8 and 16 times as many.
    cnn_blocks
        Residual blocks of the three CNN stages.
    decoder_widths
        Channels of the map below the decoder, then at strides 8, 4, 2 and 1.
    dropout
        Probability of dropping a whole channel below the decoder.
    transformer_dropout
        Dropout of the embedding and of the transformer's MLPs.
    """

    any_size = False
    size_multiple = _STRIDE

    def __init__(
        self,
        classes: int = 1,
        image_size: int = 256,
        *,
        hidden: int = 768,
        layers: int = 12,
        heads: int = 12,
        mlp: int = 3072,
        cnn_width: int = 64,
        cnn_blocks: Sequence[int] = (3, 4, 9),
        decoder_widths: Sequence[int] = (512, 256, 128, 64, 16),
        dropout: float = 0.2,
        transformer_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if hidden % heads:
            near = max(heads, round(hidden / heads) * heads)
            raise ConfigError(
                f"transunet: hidden={hidden} is not divisible by heads={heads}", hint=f"hidden={near}"
            )
        if image_size % _STRIDE:
            raise ConfigError(f"transunet: image_size={image_size} is not divisible by {_STRIDE}")
        if len(cnn_blocks) != 3 or len(decoder_widths) != 5:
            raise ConfigError(
                "transunet takes 3 cnn_blocks and 5 decoder_widths, "
                f"got {list(cnn_blocks)} and {list(decoder_widths)}"
            )
        self.root = nn.Sequential(
            StandardizedConv(3, cnn_width, 7, 2, 3, bias=False), _norm(cnn_width), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleList()
        channels = [cnn_width]
        for i, blocks in enumerate(cnn_blocks):
            cout = cnn_width * 4 * 2**i
            self.stages.append(
                nn.Sequential(
                    *(
                        Bottleneck(channels[-1] if j == 0 else cout, cout, 2 if i > 0 and j == 0 else 1)
                        for j in range(blocks)
                    )
                )
            )
            channels.append(cout)
        self.embed = nn.Conv2d(channels[-1], hidden, 1)
        grid = image_size // _STRIDE
        self.position = nn.Parameter(torch.zeros(1, hidden, grid, grid))
        self.embed_dropout = nn.Dropout(transformer_dropout)
        self.transformer = nn.ModuleList(
            TransformerLayer(hidden, heads, mlp, transformer_dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.bottleneck = ConvBnRelu(hidden, decoder_widths[0])
        self.dropout = nn.Dropout2d(dropout)
        self.decoder = nn.ModuleList(
            DoubleConv(below + skip, level)
            for below, skip, level in zip(
                decoder_widths, (*channels[2::-1], 0), decoder_widths[1:], strict=False
            )
        )
        self.head = nn.Conv2d(decoder_widths[-1], classes, 3, padding=1)
        self._init_weights()

    def _init_weights(self) -> None:
        init_weights(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.position, std=0.02)
        focal_bias_(self.head)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Maps at strides 2, 4 and 8, then the transformer's ``(N, hidden, H/16, W/16)``."""
        features = [self.root(x)]
        x = self.pool(features[0])
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        x = self.embed(features.pop())
        # always resampled: where the size is that of the embedding, bilinear weights are exactly 0 and 1
        position = F.interpolate(self.position, size=x.shape[-2:], mode="bilinear", align_corners=False)
        height, width = x.shape[-2:]
        tokens = self.embed_dropout((x + position).flatten(2).transpose(1, 2))
        for layer in self.transformer:
            tokens = layer(tokens)
        tokens = self.norm(tokens).transpose(1, 2)
        return [*features, tokens.unflatten(2, (height, width))]

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits ``(N, classes, *size)`` from the maps of ``encode``."""
        *skips, x = features
        x = self.dropout(self.bottleneck(x))
        for block, skip in zip(self.decoder, reversed(skips), strict=False):
            x = block(torch.cat([resize_to(x, skip), skip], dim=1))
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        logits: Tensor = self.head(self.decoder[-1](x))
        return logits

    def feature_layers(self) -> dict[str, nn.Module]:
        """CNN stages, the map that the transformer leaves (``bottleneck``), decoder levels."""
        named: dict[str, nn.Module] = {"encoder_1": self.root}
        named |= {f"encoder_{i}": stage for i, stage in enumerate(self.stages, start=2)}
        named["bottleneck"] = self.bottleneck
        return named | {f"decoder_{i}": block for i, block in enumerate(self.decoder, start=1)}
