"""Where a training starts from: a run folder, a safetensors file, or a bundle (``default``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dermseg.errors import DermsegError, ModelError, UnknownModelError, UsageError
from dermseg.inference.bundle import Bundle, is_bundled_name, load_bundle
from dermseg.inference.card import CARD_NAME
from dermseg.models import without_pretrained
from dermseg.models.stored import read_parameters, unfold
from dermseg.schema import read_yaml
from dermseg.training.checkpoint import BEST, CONFIG, load_weights, read_weights
from dermseg.training.config import RunConfig, expand, load_config
from dermseg.training.resolve import absolute_bundle

RECIPE = Path(__file__).with_name("finetune.yaml")
"""Settings of ``dermseg train --from`` without a configuration; ``configs/finetune.yaml`` is a copy."""

_SIZE = "training.image_size"
_FROZEN = "training.freeze_norm"  # of a bundle's batch norms, unless the configuration says something


@dataclass(frozen=True)
class Start:
    """Weights to start from: a file or a bundle, one of the two.

    Attributes
    ----------
    weights
        A ``.safetensors`` file.
    bundle
        A bundle, whose batch norms are folded.
    """

    weights: Path | None = None
    bundle: Bundle | None = None

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """All tensors for ``model``, which is not changed and may be on the meta device.

        Raises
        ------
        ModelError
            They cannot be read, or some are missing.
        """
        if self.bundle is None:
            assert self.weights is not None
            return read_weights(self.weights)
        try:
            return unfold(model, read_parameters(self.bundle.read_model(_float_variant(self.bundle))))
        except DermsegError as error:
            raise ModelError(
                f"is of another network: {error.message}",
                file=self.bundle.path,
                hint="--from takes its network too; where it has no such weights, start from its run folder",
            ) from None

    def load(self, model: nn.Module) -> None:
        """Fill ``model``.

        Raises
        ------
        ModelError
            See ``state``; or the weights are of another network.
        """
        if self.weights is not None:
            load_weights(self.weights, model)
            return
        assert self.bundle is not None
        try:
            model.load_state_dict(self.state(model))
        except RuntimeError as error:
            raise ModelError(
                f"weights do not fit: {str(error).splitlines()[0]}", file=self.bundle.path
            ) from None


def average_with(start: Start, model: nn.Module, share: float) -> None:
    """Move the weights of ``model`` towards those it started from; ``share`` is that of the start.

    WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903): most of what was learnt is kept, and what was forgotten
    comes back. It works where training has not gone far from its start.

    Raises
    ------
    ModelError
        See ``Start.state``.
    """
    first = start.state(model)
    mixed = {
        name: torch.lerp(own, first[name].to(own), share) if own.is_floating_point() else own
        for name, own in model.state_dict().items()
    }
    model.load_state_dict(mixed)


def find_start(text: str) -> Start:
    """What ``model.init_from`` means: a run folder, a ``.safetensors`` file, or a bundle's name or path.

    Raises
    ------
    UnknownModelError
        There is nothing of that name, or the package and the working directory have one each.
    ModelError
        The bundle is damaged.
    """
    if is_bundled_name(text):
        return Start(bundle=load_bundle(text))
    path = expand(text)
    if path.is_dir() and (path / BEST).exists():
        return Start(weights=path / BEST)
    if path.suffix == ".safetensors":
        return Start(weights=path)
    if (path / CONFIG).is_file() and not (path / CARD_NAME).exists():
        raise UnknownModelError(
            f"the run has no {BEST} to start from",
            file=path,
            hint=f"it has it after its first validation: dermseg train --resume {path} goes on",
        )
    try:
        return Start(bundle=load_bundle(path))
    except UnknownModelError as error:
        raise UnknownModelError(
            f"'{text}' does not exist",
            hint=f"a run folder, a .safetensors file or a bundle; {error.hint or 'default'}",
        ) from None


def load_run(config: Path | None, start: str | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """A run's configuration, with the network of what it starts from.

    Parameters
    ----------
    config
        Its YAML file; None takes ``RECIPE``.
    start
        Instead of the configuration's ``model.init_from``. Where there is either, the network is that of the
        start, unless only the configuration names one; batch norms of a bundle are frozen, unless the
        configuration says ``freeze_norm``. The image size is that of the start, unless the configuration that
        names it says ``image_size``.
    overrides
        ``key.sub=value``, over both.

    Raises
    ------
    ModelError, ConfigError, UsageError
        See ``load_config`` and ``start_settings``.
    """
    path = config or RECIPE
    own = {_FROZEN}
    if start is None:
        settings = load_config(path, overrides)
        if {"architecture", "options"} & settings.model.model_fields_set or settings.model.init_from is None:
            return settings
        start = settings.model.init_from
        own.add(_SIZE)
    said = read_yaml(path).get("training")
    own &= {f"training.{key}" for key in said} if isinstance(said, dict) else set()
    settled = [item for item in start_settings(start) if item.partition("=")[0] not in own]
    return load_config(path, [*settled, *overrides])


def start_settings(text: str) -> list[str]:
    """Settings that make a run continue from ``text``, as ``load_config`` takes them.

    The network, what it expects of an image, and its image size are those of the start; of a lone
    ``.safetensors`` file the configuration must say them.

    Raises
    ------
    ModelError, ConfigError
        There is nothing of that name, or it cannot be read.
    UsageError
        A bundle that was not trained by dermseg.
    """
    start = find_start(text)
    settings: dict[str, Any] = {}
    network: dict[str, Any] = {}
    if start.bundle is not None:
        card = start.bundle.card
        if "." in card.architecture:
            raise UsageError(
                f"'{card.name}' has a network of its own ({card.architecture})",
                file=start.bundle.path,
                hint="train from its run folder",
            )
        seen = card.preprocessing
        network = {
            "architecture": card.architecture,
            "options": card.architecture_options,
            "outputs": "sigmoid",
            "mean": seen.mean,
            "std": seen.std,
            "filters": seen.filters,
        }
        settings[_SIZE] = seen.height
        settings[_FROZEN] = True
    elif start.weights is not None and (config := start.weights.with_name(CONFIG)).exists():
        before = load_config(config)
        kept = {"architecture", "options", "outputs", "mean", "std", "filters"}
        network = before.model.model_dump(mode="json", include=kept)
        settings[_SIZE] = before.training.image_size
    if network:
        network["options"] = without_pretrained(network["options"])  # all weights come from the start
    settings |= {f"model.{key}": value for key, value in network.items()}
    settings["model.init_from"] = absolute_bundle(text)
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _float_variant(bundle: Bundle) -> str:
    """The variant with float weights, the default where it has them."""
    card = bundle.card
    names = sorted(card.variants, key=lambda name: name != card.default_variant)
    for name in names:
        variant = card.variants[name]
        if variant.format == "onnx" and variant.interface == "logits" and "int8" not in variant.precision:
            return name
    raise ModelError("no variant has float weights")
