"""Data from outside as pydantic models: YAML that people write, JSON that comes with a network."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dermseg.errors import ConfigError, ModelError

_Model = TypeVar("_Model", bound=BaseModel)
# Aliases repeat what an anchor names: a few lines of YAML can stand for billions of values.
_MOST_VALUES = 100_000
_LONGEST_VALUE = 200  # letters of a wrong one in a message


class Strict(BaseModel):
    """Data that never change, without keys that nobody reads, and with finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stored(Strict):
    """Data that come with a network. The checks are built when the first data come, which saves time at the
    start: most of these models are only parts of others, and many are not read at all."""

    model_config = ConfigDict(defer_build=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, not checked yet.

    Raises
    ------
    ConfigError
        The file is missing, not YAML, or holds something else than settings.
    """
    import yaml  # not above: outlining an image needs no YAML

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        values = _count(raw, {})
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from None
    except (yaml.YAMLError, ValueError) as error:  # not UTF-8, or a date such as 2026-13-01
        raise ConfigError(f"is not YAML: {error}", file=path) from None
    except RecursionError:  # or an alias inside of what it stands for
        raise ConfigError("is nested too deeply to be settings", file=path) from None
    if not isinstance(raw, dict):
        raise ConfigError("holds no settings (expected 'key: value' lines)", file=path)
    if values > _MOST_VALUES:
        raise ConfigError(f"holds more than {_MOST_VALUES} values, aliases written out", file=path)
    return raw


def _count(value: Any, known: dict[int, int]) -> int:
    """How many values there are, with everything written out that stands in several places."""
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in known:
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(one, known) for one in inside)
    return known[id(value)]


def check(model: type[_Model], raw: dict[str, Any], path: Path, *, hint: str | None = None) -> _Model:
    """Settings as the model they should be.

    Parameters
    ----------
    path, hint
        The file they come from, and what to do, for the message.

    Raises
    ------
    ConfigError
        Keys or values are wrong; all of them are named.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        errors = error.errors()
        # Of a list whose items are wrong pydantic also says that it is too short.
        around = {e["loc"][:depth] for e in errors for depth in range(len(e["loc"]))}
        told = "; ".join(_explain(e, model) for e in errors if e["loc"] not in around)
        raise ConfigError(told, file=path, hint=hint) from None


class Attached(Protocol):
    """What is needed of a bundle here: its card, its place and its further files, each held to its hash."""

    @property
    def card(self) -> Any: ...

    @property
    def path(self) -> Any: ...

    def read_attachment(self, name: str) -> bytes: ...


def read_part(model: type[_Model], data: bytes, name: str, *, file: str | PathLike[str], hint: str) -> _Model:
    """What stands in ``name``, a JSON file of the bundle ``file``; ``hint`` is what to do if it is wrong.

    Raises
    ------
    ModelError
        It is not of this schema; the first wrong field is named.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        check_version(problems, name, "which this dermseg does not read", file=file)
        first = problems[0]
        raise ModelError(
            f"{name}: field '{place_of(first)}': {words_of(first)}", file=file, hint=hint
        ) from None


def check_version(problems: Sequence[Any], name: str, why: str, *, file: str | PathLike[str] | None) -> None:
    """See that what is wrong with data is not their version: what has another schema also fails elsewhere.

    Raises
    ------
    ModelError
        It is the reason worth telling.
    """
    for problem in problems:
        if problem["loc"] == ("schema_version",):
            raise ModelError(
                f"{name} has schema_version {problem['input']!r}, {why}",
                file=file,
                hint="pip install --upgrade dermseg",
            ) from None


def read_attached(model: type[_Model], bundle: Attached, name: str, file: str, *, hint: str) -> _Model | None:
    """A further file of a bundle, called ``file``; None where the bundle has nothing of that name.

    Raises
    ------
    ModelError
        The file is not what the card says, or not of this schema.
    """
    if name not in bundle.card.attachments:
        return None
    return read_part(model, bundle.read_attachment(name), file, file=bundle.path, hint=hint)


def place_of(error: Any) -> str:
    """Where one of pydantic's errors is, as ``section.key``; empty where it is about the whole."""
    return ".".join(map(str, error["loc"]))


def words_of(error: Any) -> str:
    """What one of pydantic's errors says."""
    message: str = error["msg"]
    return message.removeprefix("Value error, ")


def _explain(error: Any, model: type[BaseModel]) -> str:
    """One of pydantic's errors about ``model`` in words: where, what, the value, the nearest known key."""
    where = place_of(error)
    if error["type"] in ("extra_forbidden", "model_type"):
        for part in error["loc"][: -1 if error["type"] == "extra_forbidden" else None]:
            if isinstance(part, str):
                model = _section(model, part)
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), list(model.model_fields), n=1)
        known = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(model.model_fields)}"
        return f"unknown setting '{where}', {known}"
    if not where:
        return words_of(error)
    # about a whole section the message says the values that matter
    if isinstance(error["input"], dict):
        return f"{where}: {words_of(error)}"
    got = repr(error["input"])
    got = got if len(got) <= _LONGEST_VALUE else f"{got[:_LONGEST_VALUE]} ..."
    if error["type"] == "model_type":
        name = f"'{where}.name' is a name, " if "name" in model.model_fields else ""
        return f"{where} is a section, {name}known: {', '.join(model.model_fields)} (got {got})"
    # what people write as a list is a tuple here
    words = words_of(error).replace("Tuple should", "List should").replace("a valid tuple", "a list")
    return f"{where}: {words} (got {got})"


def _section(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The settings class behind a field, also inside ``tuple[X, ...]``."""
    annotation: Any = model.model_fields[name].annotation
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return model
