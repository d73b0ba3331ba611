"""Settings as text: ``key.sub=value`` put into what a YAML file says."""

from __future__ import annotations

import re
from typing import Any

import yaml

from dermseg.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes ``1e-5`` for text; people mean a number, and so does the JSON of a suite's values."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


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
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # of a date such as 2026-13-01
        raise ConfigError(f"--set {item}: '{text}' is not YAML: {str(error).splitlines()[0]}") from None
    node: Any = raw
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}  # not there, or a section of which every line is a comment
        node = node[_position(node, part, item)] if isinstance(node, list) else node[part]
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
