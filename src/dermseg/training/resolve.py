"""What a configuration means here and now, and where two of them would give different runs."""

from __future__ import annotations

from typing import Any

from dermseg.training.config import RunConfig, expand

SAME_RESULT = frozenset(
    [
        "data.cache_dir",
        "data.decode_workers",
        "training.checkpoint_every_steps",
        "training.device",
        "training.threads",
    ]
)
"""Settings that decide where and how fast a run is computed, not what it learns."""


def resolve(config: RunConfig) -> RunConfig:
    """The configuration with absolute paths of indexes, teachers and start, and no variable left in them.

    So a run folder says what was trained on, whatever the variables and the folder of a later call are. The
    cache stays as it is written: it is made anew wherever it is missing.

    Raises
    ------
    ConfigError
        A variable is not set and has no default.
    """
    data = {
        part: tuple(
            source.model_copy(update={"index": str(expand(source.index).absolute())})
            for source in getattr(config.data, part)
        )
        for part in ("train", "val")
    }
    teachers = tuple(_bundle(name) for name in config.data.teachers)
    start = config.model.init_from
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={**data, "teachers": teachers}),
            "model": config.model.model_copy(update={"init_from": _bundle(start) if start else None}),
        }
    )


def _bundle(text: str) -> str:
    """A path as an absolute one; what is no file here is the name of a bundle inside the package."""
    path = expand(text)
    return str(path.absolute()) if path.exists() else str(path)


def differences(old: RunConfig, new: RunConfig) -> list[tuple[str, Any, Any]]:
    """Settings that differ and change the result: (key, old value, new value), in the order of the file."""
    found: list[tuple[str, Any, Any]] = []
    _compare("", resolve(old).model_dump(mode="json"), resolve(new).model_dump(mode="json"), found)
    return [each for each in found if each[0] not in SAME_RESULT]


def _compare(key: str, old: Any, new: Any, found: list[tuple[str, Any, Any]]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            _compare(f"{key}.{name}".lstrip("."), old.get(name), new.get(name), found)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            _compare(f"{key}.{number}", one, other, found)
    elif old != new:
        found.append((key, old, new))
