"""What a person says in YAML about a network that others exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from dermseg.inference.card import Postprocessing, Triple
from dermseg.schema import Strict, check, read_yaml


class ForeignInput(Strict):
    """What the network wants to see; pixels become ``(value / 255 - mean) / std``.

    A network that was given values from 0 to 1 has mean 0 and std 1, from 0 to 255 mean 0 and std 1/255, from
    -1 to 1 mean 0.5 and std 0.5.
    """

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    mean: Triple
    std: Triple
    resize: Literal["area", "bilinear"] = "area"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    channels: Literal["RGB", "BGR"] = "RGB"

    @field_validator("std")
    @classmethod
    def _positive(cls, std: Triple) -> Triple:
        if min(std) <= 0:
            raise ValueError(f"std must be above 0, got {std}")
        return std


class ForeignCard(Strict):
    """The whole YAML: who made the network, what it sees and what it gives."""

    name: str = Field(min_length=1)
    version: str = "1"
    licence: str
    summary: str = ""
    architecture: str = "foreign"
    intended_use: str = ""
    limitations: tuple[str, ...] = ()
    training: dict[str, Any] = Field(default_factory=dict)
    input: ForeignInput
    output: Literal["logits", "probabilities"]
    postprocessing: Postprocessing = Postprocessing()


def read_foreign_card(path: Path) -> ForeignCard:
    """Read the YAML.

    Raises
    ------
    ConfigError
        It cannot be read, or a field is missing, unknown or out of range; every problem is listed.
    """
    return check(ForeignCard, read_yaml(path), path, hint="docs/export.md has an example")
