"""A small U-Net for phones and browsers: 0.26 M parameters, depthwise convolutions, ReLU6 only.

Inverted residuals as encoder (Sandler et al. 2018, MobileNetV2, doi:10.1109/CVPR.2018.00474), depthwise
separable convolutions as decoder (Howard 2017, arXiv:1704.04861). The decoder is that of ``encoder_unet``:
it stops at stride 4, because a lesion's outline is smooth compared with four pixels. No operation in it
is a problem for quantization or for a browser's runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dermseg.errors import ConfigError
from dermseg.models.blocks import init_weights
from dermseg.models.encoder_unet import EncoderUNet
from dermseg.models.encoders import Encoder, InvertedResidual, batch_norm
from dermseg.models.network import SegmentationNetwork


class MobileEncoder(Encoder):
    """One group of inverted residuals per stride 2, 4, 8, 16, 32."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], expansion: int) -> None:
        super().__init__()
        self.channels = tuple(widths)
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), batch_norm(widths[0]), nn.ReLU6(inplace=True)
        )
        self.stages = nn.ModuleList()
        cin = widths[0]
        for i, (cout, n) in enumerate(zip(widths, blocks, strict=True)):
            # the stem has halved the size already, and at full width its block needs no expansion
            self.stages.append(
                nn.Sequential(
                    *(
                        InvertedResidual(
                            cin if j == 0 else cout,
                            cout,
                            kernel=3,
                            stride=2 if i > 0 and j == 0 else 1,
                            expansion=expansion if i > 0 else 1,
                        )
                        for j in range(n)
                    )
                )
            )
            cin = cout

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class MobileUNet(EncoderUNet):
    """Inverted-residual encoder and separable decoder down to stride 4.

    Parameters
    ----------
    classes
        Number of output channels (logits).
    widths
        Encoder channels at strides 2, 4, 8, 16, 32.
    blocks
        Inverted residuals at each of these strides.
    expansion
        How much wider the depthwise convolution of a block is than its ends.
    decoder_widths
        Channels at strides 32 (bottleneck), 16, 8, 4 and 2; three to five numbers.
    dropout
        Probability of dropping a whole channel at strides 32 and 16.
    """

    def __init__(
        self,
        classes: int = 1,
        widths: Sequence[int] = (16, 24, 32, 64, 96),
        *,
        blocks: Sequence[int] = (1, 2, 2, 3, 2),
        expansion: int = 4,
        decoder_widths: Sequence[int] = (64, 48, 32, 24),
        dropout: float = 0.1,
    ) -> None:
        SegmentationNetwork.__init__(self)  # the encoder is another; the rest is built alike
        if len(widths) != 5 or len(blocks) != 5:
            raise ConfigError(
                f"mobile_unet takes 5 widths and 5 blocks, got {list(widths)} and {list(blocks)}"
            )
        encoder = MobileEncoder(widths, blocks, expansion)
        self._build(
            encoder,
            classes=classes,
            decoder_widths=decoder_widths,
            separable_strides=16,
            dropout=dropout,
        )
        init_weights(encoder)
