"""The encoder that the U-Net family has in common: two convolutions per level, max pooling between them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dermseg.errors import ConfigError
from dermseg.models.blocks import DoubleConv
from dermseg.models.network import SegmentationNetwork


class UNetEncoder(SegmentationNetwork):
    """Base of the networks of the U-Net family; they add a decoder.

    Parameters
    ----------
    name
        Of the architecture, for messages.
    widths
        Channels per level, full resolution first.
    dropout
        Probability of dropping a whole channel of the bottleneck.

    Raises
    ------
    ConfigError
        Fewer than two widths.
    """

    def __init__(self, name: str, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ConfigError(f"{name} needs at least 2 widths, got {list(widths)}")
        # exported graphs take sizes that are multiples of this; in torch any size works
        self.size_multiple = 2 ** (len(widths) - 1)
        self.down = nn.ModuleList(
            DoubleConv(cin, cout) for cin, cout in zip((3, *widths), widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout2d(dropout)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Feature maps from full resolution to the bottleneck."""
        features = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else self.pool(x))
            features.append(x)
        return features

    def encoder_layers(self) -> dict[str, nn.Module]:
        """The levels from full resolution on, then ``bottleneck``."""
        *levels, bottleneck = self.down
        return {f"encoder_{i}": block for i, block in enumerate(levels, start=1)} | {"bottleneck": bottleneck}
