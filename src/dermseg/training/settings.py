"""Settings as text: ``key.sub=value`` put into what a YAML file says, and what is wrong with the result."""

from __future__ import annotations

import difflib
from typing import Any

import yaml
from pydantic import BaseModel

from dermseg.errors import ConfigError


def override(raw: dict[str, Any], item: str) -> None:
    """Put ``key.sub=value`` into ``raw``; the value is YAML, numbers in the key count a list's items from 0.

    Raises
    ------
    ConfigError
        Not of this form, or the key leads into a value or beyond the end of a list.
    """
    key, sep, text = item.partition("=")
    if not sep or not key:
        raise ConfigError(f"--set takes key=value, got '{item}'", hint="--set training.epochs=5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {item}: '{text}' is not YAML: {str(error).splitlines()[0]}") from None
    node: Any = raw
    *parents, last = key.split(".")
    for part in parents:
        node = node[_position(node, part, item)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise ConfigError(f"--set {item}: '{part}' is a value, not a section")
    if isinstance(node, list):
        node[_position(node, last, item)] = value
    else:
        node[last] = value


def _position(node: list[Any], part: str, item: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        there = ", ".join(map(str, range(len(node)))) or "none, the list is empty"
        raise ConfigError(f"--set {item}: there is no item '{part}' in that list", hint=f"items: {there}")
    return int(part)


def explain(error: Any, model: type[BaseModel]) -> str:
    """One of pydantic's errors about ``model`` in words: where, what, the value, the nearest known key."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        for part in error["loc"][:-1]:
            if isinstance(part, str):
                model = _section(model, part)
        close = difflib.get_close_matches(str(error["loc"][-1]), list(model.model_fields), n=1)
        known = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(model.model_fields)}"
        return f"unknown setting '{where}', {known}"
    message: str = error["msg"].removeprefix("Value error, ")
    if not where:
        return message
    # about a whole section the message says the values that matter
    got = "" if isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"{where}: {message}{got}"


def _section(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The settings class behind a field, also inside ``tuple[X, ...]``."""
    annotation: Any = model.model_fields[name].annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return model
