"""U-Net with a pretrained encoder and a slim decoder: the network of the bundled models.

Design decisions:

- The decoder stops at stride 4 and its logits are upsampled bilinearly. A lesion outline is smooth
  compared with four pixels, and the last stages of a stock decoder would cost more than the encoder.
- Each skip is concatenated, then two convolutions: dense at stride 16, where they are cheap, depthwise
  separable at the finer strides, where dense ones would double the time of the network.
- Dropout sits only at the bottleneck and in the lowest decoder stage, so Monte-Carlo dropout can
  repeat the cheap rest of the network while the encoder runs once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dermseg.errors import ConfigError
from dermseg.models import tiny_vit
from dermseg.models.blocks import ConvBnRelu, SeparableConv, focal_bias_, init_weights, resize_to
from dermseg.models.encoders import EfficientNetLite, Encoder, load_imagenet_weights
from dermseg.models.network import SegmentationNetwork


class EncoderUNet(SegmentationNetwork):
    """A pretrained encoder, U-Net decoder down to stride 4 (or 2, or 8).

    Parameters
    ----------
    classes
        Number of output channels (logits).
    encoder
        ``efficientnet_lite0`` / ``1`` / ``2``, ``tiny_vit`` (its deepest map is at stride 16), or
        ``timm:NAME`` for any encoder of timm that gives feature maps (needs ``dermseg[timm]``).
    decoder_widths
        Channels at strides 32 (bottleneck), 16, 8, 4 and 2; three to five numbers, the decoder stops where
        they end.
    separable_strides
        Decoder stages up to this stride use depthwise separable convolutions; 0 makes all dense.
    dropout
        Probability of dropping a whole channel at strides 32 and 16.
    pretrained
        Start from ImageNet weights (needs the weight package; timm fetches its own), ``tiny_vit`` from
        those of MobileSAM.
    """

    def __init__(
        self,
        classes: int = 1,
        encoder: str = "efficientnet_lite0",
        *,
        decoder_widths: Sequence[int] = (128, 96, 64, 32),
        separable_strides: int = 8,
        dropout: float = 0.2,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        lite = None
        found: Encoder
        if encoder == tiny_vit.NAME:
            found = tiny_vit.TinyViT()
            if pretrained:
                tiny_vit.load_mobile_sam(found)
        elif encoder.startswith("timm:"):
            from dermseg.models.timm_encoder import TimmEncoder

            found = TimmEncoder(encoder.removeprefix("timm:"), pretrained)
        else:
            found = lite = EfficientNetLite(encoder)
        self._build(
            found,
            classes=classes,
            decoder_widths=decoder_widths,
            separable_strides=separable_strides,
            dropout=dropout,
        )
        if lite and pretrained:
            load_imagenet_weights(lite)
        elif lite:
            init_weights(lite)

    def _build(
        self,
        encoder: Encoder,
        *,
        classes: int,
        decoder_widths: Sequence[int],
        separable_strides: int,
        dropout: float,
    ) -> None:
        """Put the decoder behind ``encoder``."""
        if not 3 <= len(decoder_widths) <= 5:
            raise ConfigError(
                f"decoder_widths needs 3 to 5 numbers (strides 32, 16, 8, 4, 2), got {list(decoder_widths)}"
            )
        self.encoder = encoder
        *skips, deepest = encoder.channels  # from the finest stride to stride 32
        if len(decoder_widths) - 1 > len(skips):
            raise ConfigError(
                f"decoder_widths={list(decoder_widths)} reaches a stride that the encoder has no map of",
                hint=f"give at most {len(skips) + 1} numbers",
            )
        first, *widths = decoder_widths
        self.bottleneck = ConvBnRelu(deepest, first, kernel=1)
        self.dropout = nn.Dropout2d(dropout)
        self.decoder = nn.ModuleList()
        below = first
        for stride, skip, width in zip((16, 8, 4, 2), reversed(skips), widths, strict=False):
            conv = SeparableConv if stride <= separable_strides else ConvBnRelu
            self.decoder.append(nn.Sequential(conv(below + skip, width), conv(width, width)))
            below = width
        self.head = nn.Conv2d(below, classes, 1)
        for part in (self.bottleneck, self.decoder, self.head):
            init_weights(part)
        focal_bias_(self.head)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Feature maps at strides 2 (where the encoder has one), 4, 8, 16, 32 (``tiny_vit``: 16 again)."""
        features: list[Tensor] = self.encoder(x)
        return features

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits ``(N, classes, *size)`` from the maps of ``encode``."""
        *skips, x = features
        x = self.dropout(self.bottleneck(x))
        for i, (block, skip) in enumerate(zip(self.decoder, reversed(skips), strict=False)):
            x = block(torch.cat([resize_to(x, skip), skip], dim=1))
            if i == 0:
                x = self.dropout(x)
        return F.interpolate(self.head(x), size=size, mode="bilinear", align_corners=False)

    def feature_layers(self) -> dict[str, nn.Module]:
        """Bottleneck and decoder stages, from stride 32 up."""
        named: dict[str, nn.Module] = {"bottleneck": self.bottleneck}
        return named | {f"decoder_{i}": block for i, block in enumerate(self.decoder, start=1)}
