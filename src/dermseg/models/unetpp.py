"""UNet++, the nested U-Net (Zhou, Siddiquee, Tajbakhsh and Liang 2018, doi:10.1007/978-3-030-00889-5_1).

Node ``X(i, j)`` of level ``i`` sees every earlier node of its level and the upsampled ``X(i + 1, j - 1)``::

    X(0,0)  X(0,1)  X(0,2)  X(0,3)  X(0,4) -> head
    X(1,0)  X(1,1)  X(1,2)  X(1,3)
    X(2,0)  X(2,1)  X(2,2)
    X(3,0)  X(3,1)
    X(4,0)

With deep supervision each ``X(0, j)`` has a head. The nodes with ``i + j <= k`` are then a working, smaller
UNet++ of their own: ``pruned(k)`` cuts it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dermseg.errors import ConfigError
from dermseg.models.blocks import DoubleConv, Upsampling, focal_bias_, init_weights, resize_to, upsampler
from dermseg.models.unet_encoder import UNetEncoder


class UNetPlusPlus(UNetEncoder):
    """UNet++ with configurable widths.

    Parameters
    ----------
    classes
        Number of output channels (logits).
    widths
        Channels per level, full resolution first.
    dropout
        Probability of dropping a whole channel of the bottleneck.
    upsample
        ``bilinear`` (nothing to learn) or ``transposed`` (learnt 2x2 convolutions).
    deep_supervision
        Heads on all nodes of full resolution; in training, ``forward`` gives the logits of each.
    """

    def __init__(
        self,
        classes: int = 1,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        *,
        dropout: float = 0.2,
        upsample: Upsampling = "bilinear",
        deep_supervision: bool = True,
    ) -> None:
        super().__init__("unetpp", widths, dropout)
        self.options = {"classes": classes, "dropout": dropout, "upsample": upsample}
        self.widths = tuple(widths)
        self.deep_supervision = deep_supervision
        self.depth = len(widths) - 1
        self.up = nn.ModuleDict()
        self.nodes = nn.ModuleDict()
        for j in range(1, self.depth + 1):
            for i in range(self.depth + 1 - j):
                up, channels = upsampler(widths[i + 1], widths[i], upsample)
                self.up[f"{i}_{j}"] = up
                self.nodes[f"{i}_{j}"] = DoubleConv(j * widths[i] + channels, widths[i])
        heads = range(1, self.depth + 1) if deep_supervision else [self.depth]
        self.heads = nn.ModuleDict({f"{j}": nn.Conv2d(widths[0], classes, 1) for j in heads})
        init_weights(self)
        for head in self.heads.values():
            assert isinstance(head, nn.Conv2d)
            focal_bias_(head)

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits ``(N, classes, *size)`` of the deepest head from the maps of ``encode``."""
        logits: Tensor = self.heads[f"{self.depth}"](self._nodes(features)[-1])
        return logits

    def decode_all(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """Logits of every head, the deepest first."""
        maps = self._nodes(features)
        return tuple(head(maps[int(j)]) for j, head in reversed(list(self.heads.items())))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits ``(N, classes, H, W)``; one per head while training with deep supervision."""
        features = self.encode(x)
        if self.training and self.deep_supervision:
            return self.decode_all(features)
        return self.decode(features, (x.shape[-2], x.shape[-1]))

    def _nodes(self, features: list[Tensor]) -> list[Tensor]:
        """The nodes ``X(0, j)``."""
        rows = [[f] for f in features]
        rows[-1][0] = self.dropout(rows[-1][0])
        for j in range(1, self.depth + 1):
            for i in range(self.depth + 1 - j):
                below = self.up[f"{i}_{j}"](rows[i + 1][j - 1])
                rows[i].append(
                    self.nodes[f"{i}_{j}"](torch.cat([*rows[i], resize_to(below, rows[i][0])], dim=1))
                )
        return rows[0]

    def pruned(self, depth: int) -> UNetPlusPlus:
        """The smaller UNet++ of ``depth`` levels below full resolution, with this one's weights.

        Its output is what head ``depth`` of this network gives, at a fraction of the time and parameters.

        Raises
        ------
        ConfigError
            There is no head at that depth.
        """
        if str(depth) not in self.heads:
            raise ConfigError(
                f"unetpp cannot be pruned to depth {depth}",
                hint=f"it has heads at {', '.join(self.heads)}",
            )
        # every head up to `depth` exists where deep supervision is on; without it there is nothing to cut
        small = UNetPlusPlus(
            widths=self.widths[: depth + 1],
            deep_supervision=self.deep_supervision,
            **self.options,  # type: ignore[arg-type]
        )
        ours = self.state_dict()
        small.load_state_dict({name: ours[name] for name in small.state_dict()})
        return small.train(self.training)

    def feature_layers(self) -> dict[str, nn.Module]:
        """``X(i, 0)``, then the nested nodes column by column; the last is ``X(0, depth)``."""
        *levels, bottleneck = self.down
        named: dict[str, nn.Module] = {f"x_{i}_0": block for i, block in enumerate(levels)}
        named["bottleneck"] = bottleneck
        return named | {f"x_{name}": node for name, node in self.nodes.items()}
