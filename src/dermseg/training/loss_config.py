"""The ``training.loss`` section of a configuration: one flat set of settings, checked against the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import (
    Field,
    NonNegativeFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from dermseg.errors import ConfigError
from dermseg.registry import find_loss
from dermseg.schema import Strict

_T = TypeVar("_T")


def or_value_error(find: Callable[[str], _T], name: str) -> _T:
    """``find(name)``, with an error that pydantic collects."""
    try:
        return find(name)
    except ConfigError as error:
        raise ValueError(str(error)) from None


_FOR_EVERY_LOSS = {"name", "class_weights", "small_lesion_weight", "small_lesion_area"}


class LossConfig(Strict):
    """Which loss, and its settings; ``registry.LOSSES`` says which setting belongs to which."""

    name: str = Field(default="bce_dice", description="or the dotted path of a loss of your own")
    bce: float = Field(default=1.0, ge=0)
    ce: float = Field(default=1.0, ge=0)
    dice: float = Field(default=1.0, ge=0)
    boundary: float = Field(default=1.0, ge=0)
    gamma: float = Field(default=2.0, ge=0)
    alpha: float | None = Field(default=0.25, ge=0, le=1, description="weight of lesion; None weighs nothing")
    false_positive: float = Field(default=0.3, gt=0)
    false_negative: float = Field(default=0.7, gt=0)
    class_weights: tuple[NonNegativeFloat, ...] | None = Field(default=None, description="one per class")
    small_lesion_weight: float = Field(default=1.0, gt=0, description="weight of images with a small lesion")
    small_lesion_area: float = Field(default=0.05, gt=0, lt=1, description="share of the image that is small")
    options: dict[str, Any] = Field(default_factory=dict, description="what the dotted path is called with")

    @model_validator(mode="after")
    def _fits_the_loss(self) -> LossConfig:
        for key in self.model_fields_set - self._used():
            field = type(self).model_fields[key]
            if getattr(self, key) != field.get_default(call_default_factory=True):
                raise ValueError(f"'{key}' is no setting of the loss '{self.name}'")
        weights = [getattr(self, key) for key in ("bce", "ce", "dice", "boundary") if key in self._used()]
        if weights and not any(weights):
            raise ValueError("at least one loss weight must be above 0")
        if self.class_weights is not None and not any(self.class_weights):
            raise ValueError("at least one class weight must be above 0")
        return self

    def _used(self) -> set[str]:
        """The settings that mean something for this loss."""
        if "." in self.name:
            return {"name", "options"}
        return _FOR_EVERY_LOSS | set(or_value_error(find_loss, self.name).settings)

    @model_serializer(mode="wrap")
    def _only_what_is_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        every: dict[str, Any] = handler(self)
        own = self._used() - _FOR_EVERY_LOSS | {"name"}
        return {
            key: value
            for key, value in every.items()
            if key in own or (key in self._used() and value != type(self).model_fields[key].default)
        }
