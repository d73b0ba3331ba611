"""The configuration of a training run: frozen pydantic models read from YAML.

Unknown keys are refused with the nearest known one. ``${NAME}`` in a path is taken from the
environment, so configuration files carry no machine paths.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dermseg.errors import ConfigError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceConfig(_Frozen):
    """Images of one index that take part."""

    index: str
    split: str = "train"
    limit: int | None = Field(default=None, ge=1, description="use only this many images, drawn once by seed")
    per_epoch: int | None = Field(
        default=None, ge=1, description="images drawn per epoch; None is all of them"
    )


class DataConfig(_Frozen):
    """Which images are trained on and which choose the best checkpoint."""

    train: tuple[SourceConfig, ...] = Field(min_length=1)
    val: tuple[SourceConfig, ...] = Field(min_length=1)
    cache_dir: str = "${DERMSEG_CACHE:-~/.cache/dermseg}"
    cache_size: int = Field(
        default=256, ge=32, le=2048, description="side in pixels at which images are kept"
    )
    decode_workers: int = Field(default=2, ge=1)


class ModelConfig(_Frozen):
    """Registry name of the architecture and what its constructor takes."""

    architecture: str = "encoder_unet"
    options: dict[str, Any] = Field(default_factory=dict)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    init_from: str | None = Field(default=None, description="run folder or .safetensors to start from")


class AugmentationConfig(_Frozen):
    """Strengths of the joint image-and-mask transform; 0 switches a step off."""

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
    hair: float = Field(default=0.12, ge=0, le=1, description="probability")
    vignette: float = Field(default=0.12, ge=0, le=1, description="probability")
    ruler: float = Field(default=0.04, ge=0, le=1, description="probability")
    bubbles: float = Field(default=0.04, ge=0, le=1, description="probability")


class PhaseConfig(_Frozen):
    """A first part of the training at a smaller, cheaper image size."""

    epochs: int = Field(ge=1)
    image_size: int = Field(ge=32)
    batch_size: int | None = Field(default=None, ge=1)


class LossConfig(_Frozen):
    """Weights of the parts of the loss."""

    bce: float = Field(default=1.0, ge=0)
    dice: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _not_all_zero(self) -> LossConfig:
        if self.bce == self.dice == 0:
            raise ValueError("at least one loss weight must be above 0")
        return self


class TrainingConfig(_Frozen):
    """The optimisation itself."""

    epochs: int = Field(default=20, ge=1)
    image_size: int = Field(default=256, ge=32)
    batch_size: int = Field(default=16, ge=1)
    phases: tuple[PhaseConfig, ...] = ()
    lr: float = Field(default=1e-3, gt=0)
    encoder_lr_factor: float = Field(default=1.0, gt=0, description="for parameters below model.encoder")
    weight_decay: float = Field(default=1e-2, ge=0)
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the run")
    loss: LossConfig = LossConfig()
    grad_clip: float | None = Field(default=1.0, gt=0)
    ema_decay: float | None = Field(default=0.998, gt=0, lt=1)
    autocast: Literal["auto", "off", "bf16", "fp16"] = "auto"
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    early_stopping_patience: int = Field(default=15, ge=1, description="validations without improvement")
    validate_every: int = Field(default=1, ge=1, description="epochs")
    checkpoint_every_steps: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _phases_fit(self) -> TrainingConfig:
        if sum(p.epochs for p in self.phases) >= self.epochs:
            raise ValueError("phases take as many epochs as the whole run: none is left at image_size")
        return self

    def at_epoch(self, epoch: int) -> tuple[int, int]:
        """Image size and batch size of an epoch (0-based)."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase.image_size, phase.batch_size or self.batch_size
            epoch -= phase.epochs
        return self.image_size, self.batch_size


class RunConfig(_Frozen):
    """Everything that decides a run."""

    name: str = "run"
    seed: int = Field(default=0, ge=0)
    data: DataConfig
    model: ModelConfig = ModelConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    training: TrainingConfig = TrainingConfig()


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
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML: {error}", file=path) from None
    if not isinstance(raw, dict):
        raise ConfigError("holds no settings (expected 'key: value' lines)", file=path)
    for item in overrides:
        _override(raw, item)
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e) for e in error.errors()), file=path) from None


def _override(raw: dict[str, Any], item: str) -> None:
    key, sep, text = item.partition("=")
    if not sep or not key:
        raise ConfigError(f"--set takes key=value, got '{item}'", hint="--set training.epochs=5")
    node: Any = raw
    *parents, last = key.split(".")
    for part in parents:
        node = node[int(part)] if isinstance(node, list) and part.isdigit() else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise ConfigError(f"--set {item}: '{part}' is a value, not a section")
    value = yaml.safe_load(text)
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        model: Any = RunConfig
        for part in error["loc"][:-1]:
            if isinstance(part, str):
                model = _section(model, part)
        close = difflib.get_close_matches(str(error["loc"][-1]), list(model.model_fields), n=1)
        known = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(model.model_fields)}"
        return f"unknown setting '{where}', {known}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {error['input']!r})" if where else message


def _section(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The settings class behind a field, also inside ``tuple[X, ...]``."""
    annotation: Any = model.model_fields[name].annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return model
