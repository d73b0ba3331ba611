"""The feature maps of a network that Grad-CAM can explain."""

from __future__ import annotations

from torch import nn

from dermseg.errors import ModelError


def feature_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers whose feature maps can be explained, by name, from coarse to fine as the network says."""
    named = getattr(model, "feature_layers", None)
    if named is None:
        raise ModelError(f"{type(model).__name__} names no feature layers")
    layers: dict[str, nn.Module] = named()
    return layers


def default_layer(names: list[str]) -> str:
    """The first layer after the bottleneck.

    With skip connections the bottleneck often carries nothing that speaks for the outline (its map is then
    empty); the layer after it is the coarsest that always does.
    """
    return names[names.index("bottleneck") + 1] if "bottleneck" in names[:-1] else names[0]
