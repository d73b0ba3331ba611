"""Names that the command line, the API and the docs share, without importing what they stand for.

A table and not a decorator: importing it costs nothing, needs no torch, and its order is ours. A test
builds every entry and holds this table to what the code says.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

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
    deep_supervision
        Whether auxiliary heads take part in training.
    mc_dropout
        Whether it has dropout that acts after ``encode``, for Monte-Carlo dropout.
    size_multiple
        Height and width of images are multiples of this with default options; 1 is any size.
    """

    name: str
    summary: str
    parameters: int
    source: str
    pretrained: bool = False
    deep_supervision: bool = False
    mc_dropout: bool = True
    size_multiple: int = 1


@dataclass(frozen=True)
class Loss:
    """What training can minimise.

    Parameters
    ----------
    name
        What configuration files call it.
    summary
        One line for people.
    source
        Where it was published.
    outputs
        Which ``model.outputs`` it fits.
    settings
        Its own settings below ``training.loss``.
    """

    name: str
    summary: str
    source: str
    outputs: tuple[str, ...]
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """What may choose the best checkpoint of a run; larger is better."""

    name: str
    summary: str


_Entry = TypeVar("_Entry", Architecture, Loss, Metric)

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="unet",
        summary="The classic U-Net, 64 to 1024 channels, batch norm, transposed convolutions",
        parameters=31_037_633,
        source="Ronneberger, Fischer and Brox 2015, doi:10.1007/978-3-319-24574-4_28",
        size_multiple=16,
    ),
    Architecture(
        name="unetpp",
        summary="UNet++, nested dense skips, deep supervision, can be pruned after training",
        parameters=9_159_780,
        source="Zhou, Siddiquee, Tajbakhsh and Liang 2018, doi:10.1007/978-3-030-00889-5_1",
        deep_supervision=True,
        size_multiple=16,
    ),
    Architecture(
        name="attention_unet",
        summary="U-Net with attention gates on its skip connections",
        parameters=32_433_157,
        source="Oktay et al. 2018, arXiv:1804.03999",
        size_multiple=16,
    ),
    Architecture(
        name="transunet",
        summary="ResNet and ViT-B/16 encoder, cascaded decoder; large, for GPUs and many images",
        parameters=105_322_001,
        source="Chen et al. 2021, arXiv:2102.04306",
        size_multiple=16,
    ),
    Architecture(
        name="encoder_unet",
        summary="U-Net with an EfficientNet-Lite encoder and a slim decoder; the default model",
        parameters=3_311_329,
        source="Tan and Le 2019, arXiv:1905.11946 (encoder)",
        pretrained=True,
    ),
    Architecture(
        name="mobile_unet",
        summary="Depthwise separable U-Net for phones and browsers",
        parameters=261_513,
        source="Sandler et al. 2018, doi:10.1109/CVPR.2018.00474 (encoder)",
    ),
)
LOSSES: tuple[Loss, ...] = (
    Loss(
        "bce_dice",
        "Binary cross-entropy plus soft Dice; the default",
        "Drozdzal et al. 2016, arXiv:1608.04117 (Dice)",
        ("sigmoid",),
        ("bce", "dice"),
    ),
    Loss("bce", "Binary cross-entropy", "Cox 1958, doi:10.1111/j.2517-6161.1958.tb00292.x", ("sigmoid",)),
    Loss(
        "ce_dice",
        "Cross-entropy over classes plus soft Dice of every class but the background",
        "Isensee et al. 2021, doi:10.1038/s41592-020-01008-z",
        ("softmax",),
        ("ce", "dice"),
    ),
    Loss(
        "focal",
        "Cross-entropy that looks away from pixels that are right already",
        "Lin et al. 2017, doi:10.1109/ICCV.2017.324",
        ("sigmoid", "softmax"),
        ("gamma", "alpha"),
    ),
    Loss(
        "tversky",
        "Dice with separate prices for pixels found in excess and pixels missed",
        "Salehi, Erdogmus and Gholipour 2017, doi:10.1007/978-3-319-67389-9_44",
        ("sigmoid", "softmax"),
        ("false_positive", "false_negative"),
    ),
    Loss(
        "lovasz",
        "The Jaccard index itself, extended smoothly",
        "Berman, Triki and Blaschko 2018, doi:10.1109/CVPR.2018.00464",
        ("sigmoid", "softmax"),
    ),
    Loss(
        "boundary",
        "Soft Dice plus the distance of wrong pixels from the outline",
        "Kervadec et al. 2019, proceedings.mlr.press/v102/kervadec19a",
        ("sigmoid", "softmax"),
        ("dice", "boundary"),
    ),
)
METRICS: tuple[Metric, ...] = (
    Metric("dice", "Dice coefficient, mean over images and masks; the default"),
    Metric("jaccard", "Jaccard index, mean over images and masks"),
    Metric("micro_jaccard", "Jaccard index over the pixels of all images and masks together"),
)


def find_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises
    ------
    ConfigError
        There is none; the message names the nearest.
    """
    return _find(ARCHITECTURES, name, "architecture")


def find_loss(name: str) -> Loss:
    """The loss of that name.

    Raises
    ------
    ConfigError
        There is none; the message names the nearest.
    """
    return _find(LOSSES, name, "loss")


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises
    ------
    ConfigError
        There is none; the message names the nearest.
    """
    return _find(METRICS, name, "metric")


def _find(table: tuple[_Entry, ...], name: str, what: str) -> _Entry:
    for entry in table:
        if entry.name == name:
            return entry
    raise ConfigError(f"unknown {what} '{name}'", hint=closest(name, [entry.name for entry in table]))


def closest(name: str, known: Iterable[str]) -> str:
    """The hint for a wrong name: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(names)}"


def load_dotted(path: str) -> Callable[..., Any]:
    """What ``package.module.name`` names: a class, a function or any other callable object.

    Raises
    ------
    ConfigError
        The module cannot be imported, or has no such callable.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module of somebody else does when imported
        raise ConfigError(
            f"'{path}' cannot be imported: {type(error).__name__}: {error}",
            hint="install its package, or put its folder on PYTHONPATH",
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"module '{module_name}' has no '{name}' to call", hint=closest(name, names))
    called: Callable[..., Any] = found
    return called
