"""What every network offers, so that training, export and explanation need no special cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dermseg.errors import ModelError


class SegmentationNetwork(nn.Module):
    """Base of the networks: images ``(N, 3, H, W)`` in, logits ``(N, classes, H, W)`` out.

    Attributes
    ----------
    size_multiple
        Height and width of what an exported graph takes are multiples of this.
    any_size
        Whether in torch every height and width works all the same (by resizing at the skips).
    deep_supervision
        Whether ``forward`` gives a tuple of logits in training mode: the one that inference uses first,
        then those of the auxiliary heads, all of the same shape.
    dropout
        The layer to set to training mode for Monte-Carlo dropout. It acts in ``decode`` only, so one
        ``encode`` serves all repetitions.
    """

    size_multiple: int = 1
    any_size: bool = True
    deep_supervision: bool = False
    dropout: nn.Module

    def encode(self, x: Tensor) -> list[Tensor]:
        """Feature maps of ``x``, finest first, the bottleneck last."""
        raise NotImplementedError

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits ``(N, classes, *size)`` from the maps of ``encode``."""
        raise NotImplementedError

    def feature_layers(self) -> dict[str, nn.Module]:
        """Layers whose output is a map ``(N, C, h, w)``, by name, in the order in which they run.

        ``bottleneck`` is always among them; the last one feeds the head. Grad-CAM looks at these.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits ``(N, classes, H, W)`` for images ``(N, 3, H, W)``.

        Raises
        ------
        ModelError
            The network cannot work at this size; the message names the nearest that it can.
        """
        if not self.any_size:
            check_size((x.shape[-2], x.shape[-1]), self.size_multiple, type(self).__name__)
        return self.decode(self.encode(x), (x.shape[-2], x.shape[-1]))

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, ...]: ...


def check_size(size: tuple[int, int], multiple: int, name: str) -> None:
    """Refuse a height and width that are not multiples of ``multiple``.

    Raises
    ------
    ModelError
        They are not.
    """
    if torch.compiler.is_exporting():  # sizes are symbols there
        return
    height, width = size
    if height % multiple or width % multiple:
        up = [-(-side // multiple) * multiple for side in size]
        raise ModelError(
            f"{name} takes sizes divisible by {multiple}, got {height} x {width}",
            hint=f"resize or pad the images to {up[0]} x {up[1]}",
        )
