"""The configuration of a training run: frozen pydantic models read from YAML.

Unknown keys are refused with the nearest known one. ``${NAME}`` in a path is taken from the
environment, so configuration files carry no machine paths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dermseg.errors import ConfigError
from dermseg.images.filter_names import FilterName
from dermseg.inference.card import Preprocessing
from dermseg.registry import find_architecture, find_metric
from dermseg.schema import Strict, check, read_yaml
from dermseg.training.loss_config import LossConfig, or_value_error
from dermseg.training.settings import override


class SourceConfig(Strict):
    """Images of one index that take part."""

    index: str
    split: str = "train"
    limit: int | None = Field(default=None, ge=1, description="use only this many images, drawn once by seed")
    per_epoch: int | None = Field(
        default=None, ge=1, description="images drawn per epoch; None is all of them"
    )
    at_least: int | None = Field(
        default=None,
        ge=1,
        description="images drawn per epoch at least, where per_epoch is None: fewer come several times",
    )
    soften: bool = Field(default=True, description="let data.teachers soften the masks, where there are any")

    def images_per_epoch(self, there: int) -> int:
        """How many images an epoch takes of the ``there`` images of this source."""
        return self.per_epoch or max(there, self.at_least or 0)


class DataConfig(Strict):
    """Which images are trained on and which choose the best checkpoint."""

    train: tuple[SourceConfig, ...] = Field(min_length=1)
    val: tuple[SourceConfig, ...] = Field(min_length=1)
    cache_dir: str = "${DERMSEG_CACHE:-~/.cache/dermseg}"
    cache_size: int = Field(
        default=256, ge=32, le=2048, description="side in pixels at which images are kept"
    )
    teachers: tuple[str, ...] = Field(
        default=(), description="bundles whose mean probability softens the masks of train: distillation"
    )
    teacher_weight: float = Field(default=0.5, gt=0, le=1, description="share of the teachers in a mask")
    decode_workers: int | None = Field(
        default=None,
        ge=1,
        description="threads that make batches; None is 2 beside a network on the CPU, else one per core",
    )


class ModelConfig(Strict):
    """Registry name of the architecture and what its constructor takes."""

    architecture: str = Field(
        default="encoder_unet", description="or the dotted path of a class or function of your own"
    )
    options: dict[str, Any] = Field(default_factory=dict)
    outputs: Literal["sigmoid", "softmax"] = Field(
        default="sigmoid", description="channels are independent, or classes of which class 0 is background"
    )
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    filters: tuple[FilterName, ...] = Field(
        default=(), description="preprocessing of every image, here and wherever the bundle is used"
    )
    init_from: str | None = Field(
        default=None, description="run folder, .safetensors file or bundle to start from"
    )
    average_with_start: float = Field(
        default=0.0, ge=0, lt=1, description="share of the weights of init_from in those that are exported"
    )

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        return name if "." in name else or_value_error(find_architecture, name).name

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.average_with_start and self.init_from is None:
            raise ValueError("average_with_start needs init_from, the weights to average with")
        classes = self.options.get("classes", 1)
        if not isinstance(classes, int) or classes < 1:
            raise ValueError(f"options.classes is {classes!r}: a whole number from 1 on is needed")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}: images are divided by it, so each is above 0")
        if self.outputs == "softmax" and self.classes < 2:
            raise ValueError("outputs=softmax needs options.classes of 2 or more (class 0 is the background)")
        return self

    @property
    def classes(self) -> int:
        """Output channels of the network."""
        return int(self.options.get("classes", 1))

    @property
    def from_nothing(self) -> bool:
        """Whether it is a network of this package that begins with random weights."""
        return not (self.init_from or self.options.get("pretrained") or "." in self.architecture)

    @property
    def masks(self) -> int:
        """Masks that an image needs: one per channel, but none for the background."""
        return self.classes - 1 if self.outputs == "softmax" else self.classes


class AugmentationConfig(Strict):
    """Strengths of the joint image-and-mask transform; 0 switches a step off.

    ``name`` replaces it by a transform of your own, see ``training.plugins``.
    """

    name: str | None = Field(default=None, description="dotted path of a transform, or of what makes one")
    options: dict[str, Any] = Field(default_factory=dict, description="what the dotted path is called with")
    rotate_degrees: float = Field(default=180.0, ge=0, le=180)
    scale: tuple[float, float] = (0.85, 1.4)
    aspect: float = Field(default=0.1, ge=0, le=0.5)
    shift: float = Field(default=0.1, ge=0, le=0.5, description="share of the side")
    flip: bool = True
    brightness: float = Field(default=0.12, ge=0, le=1)
    contrast: float = Field(default=0.25, ge=0, le=1)
    gamma: float = Field(default=0.2, ge=0, le=1)
    colour_cast: float = Field(default=0.08, ge=0, le=1)
    saturation: float = Field(default=0.3, ge=0, le=1)
    blur: float = Field(default=0.1, ge=0, le=1, description="probability")
    noise: float = Field(
        default=0.0, ge=0, le=1, description="probability; the bundled models were trained without"
    )
    hair: float = Field(default=0.12, ge=0, le=1, description="probability")
    vignette: float = Field(default=0.12, ge=0, le=1, description="probability")
    ruler: float = Field(default=0.04, ge=0, le=1, description="probability")
    bubbles: float = Field(default=0.04, ge=0, le=1, description="probability")

    @model_validator(mode="after")
    def _consistent(self) -> AugmentationConfig:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}: the smallest factor first, both above 0")
        if self.name is None:
            if self.options:
                raise ValueError("options belong to a transform of your own: give its dotted path as name")
            return self
        if "." not in self.name:
            raise ValueError(f"name is the dotted path of a transform, not '{self.name}'")
        for key in self.model_fields_set - {"name", "options"}:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"'{key}' has no effect beside name={self.name}: leave one of them out")
        return self


class PhaseConfig(Strict):
    """A first part of the training at a smaller, cheaper image size."""

    epochs: int = Field(ge=1)
    image_size: int = Field(ge=32, le=4096)
    batch_size: int | None = Field(default=None, ge=1)


class TrainingConfig(Strict):
    """The optimisation itself."""

    epochs: int = Field(default=20, ge=1)
    image_size: int = Field(default=256, ge=32, le=4096)
    inference_size: int | None = Field(
        default=None,
        ge=32,
        le=4096,
        description="image size of the exported network; None is that at which it was best. A somewhat "
        "larger size than that of training may be better (Touvron 2019, arXiv:1906.06423)",
    )
    batch_size: int = Field(default=16, ge=1)
    phases: tuple[PhaseConfig, ...] = ()
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients make one step")
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd (Nesterov)")
    lr: float = Field(default=1e-3, gt=0)
    encoder_lr_factor: float = Field(default=1.0, gt=0, description="for parameters below model.encoder")
    weight_decay: float = Field(default=1e-2, ge=0)
    schedule: Literal["one_cycle", "cosine", "constant", "plateau"] = "one_cycle"
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the run")
    plateau_factor: float = Field(default=0.1, gt=0, lt=1, description="of schedule=plateau")
    plateau_patience: int = Field(default=5, ge=0, description="validations that may bring nothing better")
    loss: LossConfig = LossConfig()
    grad_clip: float | None = Field(default=1.0, gt=0)
    ema_decay: float | None = Field(default=0.998, gt=0, lt=1)
    freeze_norm: bool = Field(
        default=False,
        description="batch norms keep their statistics: for few images",
    )
    autocast: Literal["auto", "off", "bf16", "fp16"] = "auto"
    channels_last: bool = Field(default=True, description="memory layout in which convolutions are faster")
    compile: bool = Field(default=False, description="torch.compile: a slow start, then faster steps")
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)  # torch ends without a word on far too many
    metric: str = Field(default="dice", description="chooses the best checkpoint; or a dotted path")
    early_stopping_patience: int = Field(default=15, ge=1, description="validations without improvement")
    validate_every: int = Field(default=1, ge=1, description="epochs")
    checkpoint_every_steps: int = Field(default=100, ge=1)

    @field_validator("autocast", mode="before")
    @classmethod
    def _off(cls, name: Any) -> Any:
        return "off" if name is False else name  # YAML reads a bare off as false

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        return name if "." in name else or_value_error(find_metric, name).name

    @model_validator(mode="after")
    def _phases_fit(self) -> TrainingConfig:
        taken = sum(p.epochs for p in self.phases)
        if taken >= self.epochs:
            raise ValueError(
                f"phases take {taken} of {self.epochs} epochs: none is left at image_size; give more epochs, "
                "or no phases (--set training.phases=[])"
            )
        return self

    def at_epoch(self, epoch: int) -> tuple[int, int]:
        """Image size and batch size of an epoch (0-based)."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase.image_size, phase.batch_size or self.batch_size
            epoch -= phase.epochs
        return self.image_size, self.batch_size


class RunConfig(Strict):
    """Everything that decides a run."""

    name: str = "run"
    seed: int = Field(default=0, ge=0, lt=2**63)
    data: DataConfig
    model: ModelConfig = ModelConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig = TrainingConfig()


def network_preprocessing(config: RunConfig, size: int) -> Preprocessing:
    """What is done to an image before a network of this run sees it at ``size``."""
    model = config.model
    return Preprocessing(height=size, width=size, filters=model.filters, mean=model.mean, std=model.std)


def expand(text: str, base: Path | None = None) -> Path:
    """Replace ``${NAME}`` and ``${NAME:-default}`` and ``~``; relative paths start at ``base``.

    Raises
    ------
    ConfigError
        The variable is not set and there is no default.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = os.environ.get(name, default)
        if found is None:
            raise ConfigError(f"'{text}' needs the environment variable {name}", hint=f"export {name}=...")
        return found

    path = Path(re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)).expanduser()
    return path if path.is_absolute() or base is None else base / path


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and apply ``key.sub=value`` overrides (values are YAML).

    Raises
    ------
    ConfigError
        The file is missing or not YAML, or a key or value is wrong; every problem is listed.
    """
    raw = read_yaml(path)
    for item in overrides:
        override(raw, item)
    return check(RunConfig, raw, path)
