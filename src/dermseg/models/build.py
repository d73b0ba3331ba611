"""From a name and options to a network."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from dermseg.errors import ConfigError
from dermseg.models.encoder_unet import EncoderUNet
from dermseg.models.unet import UNet

_ARCHITECTURES: dict[str, type[nn.Module]] = {"unet": UNet, "encoder_unet": EncoderUNet}


def build_model(architecture: str, **options: Any) -> nn.Module:
    """Build a network by its registry name.

    Raises
    ------
    ConfigError
        Unknown architecture or option; the message lists what is known.
    """
    if architecture not in _ARCHITECTURES:
        raise ConfigError(
            f"unknown architecture '{architecture}'", hint=f"use one of {sorted(_ARCHITECTURES)}"
        )
    cls = _ARCHITECTURES[architecture]
    known = set(inspect.signature(cls).parameters)
    unknown = set(options) - known
    if unknown:
        raise ConfigError(
            f"'{architecture}' has no option {sorted(unknown)}", hint=f"it takes {sorted(known)}"
        )
    return cls(**options)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
