"""From a name and options to a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dermseg.errors import ConfigError
from dermseg.models.attention_unet import AttentionUNet
from dermseg.models.encoder_unet import EncoderUNet
from dermseg.models.mobile_unet import MobileUNet
from dermseg.models.transunet import TransUNet
from dermseg.models.unet import UNet
from dermseg.models.unetpp import UNetPlusPlus
from dermseg.registry import closest, load_dotted

_ARCHITECTURES: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "unetpp": UNetPlusPlus,
    "attention_unet": AttentionUNet,
    "transunet": TransUNet,
    "encoder_unet": EncoderUNet,
    "mobile_unet": MobileUNet,
}


def without_pretrained(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for a network that gets every weight from elsewhere: it looks for no ImageNet weights."""
    return {key: False if key == "pretrained" else value for key, value in options.items()}


def build_model(architecture: str, **options: Any) -> nn.Module:
    """Build a network by its registry name, or by the dotted path of a class or function of your own.

    What a dotted path names is called with ``options`` and must give an ``nn.Module`` that maps
    ``(N, 3, H, W)`` to logits ``(N, classes, H, W)``.

    Raises
    ------
    ConfigError
        Unknown architecture or option; the message names the nearest one that is known.
    """
    if "." in architecture:
        factory = load_dotted(architecture)
        _check_options(architecture, factory, options)
        model = factory(**options)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"'{architecture}' gave a {type(model).__name__} and not a torch.nn.Module")
        return model
    if architecture not in _ARCHITECTURES:
        raise ConfigError(
            f"unknown architecture '{architecture}'", hint=closest(architecture, _ARCHITECTURES)
        )
    cls = _ARCHITECTURES[architecture]
    _check_options(architecture, cls, options)
    return cls(**options)


def _check_options(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> None:
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # a builtin does not say what it takes
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise ConfigError(f"'{name}' has no option '{option}'", hint=closest(option, parameters))


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
