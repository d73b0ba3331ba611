"""What a configuration means here and now, and where two of them would give different runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dermseg.errors import UsageError
from dermseg.inference.bundle import is_bundled_name
from dermseg.models import without_pretrained
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

# On resuming: names, locations, and what export alone reads.
_MAY_CHANGE = re.compile(
    r"name|data\.(train|val)\.\d+\.index|data\.teachers\.\d+|model\.(init_from|average_with_start)"
    r"|training\.inference_size"
)


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
    teachers = tuple(absolute_bundle(name) for name in config.data.teachers)
    start = config.model.init_from
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={**data, "teachers": teachers}),
            "model": config.model.model_copy(update={"init_from": absolute_bundle(start) if start else None}),
        }
    )


def without_start(config: RunConfig) -> RunConfig:
    """The configuration of a run that has a checkpoint, which holds all weights: their source may be gone."""
    options = without_pretrained(config.model.options)
    model = config.model.model_copy(update={"init_from": None, "options": options})
    return config.model_copy(update={"model": model})


def absolute_bundle(text: str) -> str:
    """A path as an absolute one; the name of a bundle inside the package, or of nothing here, as it is."""
    if is_bundled_name(text):
        return text
    path = expand(text)
    return str(path.absolute()) if path.exists() else str(path)


def differences(old: RunConfig, new: RunConfig) -> list[tuple[str, Any, Any]]:
    """Settings that differ and change the result: (key, old value, new value), in the order of the file."""
    found: list[tuple[str, Any, Any]] = []
    _compare("", resolve(old).model_dump(mode="json"), resolve(new).model_dump(mode="json"), found)
    return [each for each in found if each[0] not in SAME_RESULT]


def differences_of_runs(old: RunConfig, new: RunConfig) -> list[tuple[str, Any, Any]]:
    """As ``differences``, less what may change of one run: names, locations, what export alone reads."""
    return [each for each in differences(old, new) if not _MAY_CHANGE.fullmatch(each[0])]


def digest_ids(image_ids: Sequence[str]) -> str:
    """What tells one choice of images, in its order, from another of as many."""
    return hashlib.sha256("\0".join(image_ids).encode()).hexdigest()[:16]


def check_same_run(
    state: dict[str, Any], config: RunConfig, images: list[int], image_ids: list[str], file: Path
) -> None:
    """Refuse to go on from a checkpoint with other settings or images: it would be neither run.

    Names and locations may change (of the run, its indexes, teachers and start), and what export reads.

    Parameters
    ----------
    state
        What ``last.pt`` holds; an old one does not say its settings, and is believed.
    images
        How many each source of train and val has.
    image_ids
        Which, by ``digest_ids``. An index that was split anew often has as many, and images that were
        trained on would be among those that choose the best checkpoint.
    file
        The configuration of the run folder.

    Raises
    ------
    UsageError
        A setting that changes the result is another, or the images are.
    """
    hint = f"put it back, or go on as a new run: dermseg train --from {file.parent} -o ANOTHER"
    if "config" not in state:
        return
    began = RunConfig.model_validate_json(state["config"])
    found = differences_of_runs(began, config)
    if found:
        key, old, new = found[0]
        more = f", and {len(found) - 1} more settings differ" if len(found) > 1 else ""
        raise UsageError(f"{key} is {new!r} and was {old!r} when the run began{more}", file=file, hint=hint)
    if images != state["images"]:
        raise UsageError(
            f"train and val have {images} images and had {state['images']} when the run began",
            file=file,
            hint=hint,
        )
    if image_ids != state.get("image_ids", image_ids):
        raise UsageError(
            "train and val have other images, or in another order, than when the run began",
            file=file,
            hint=hint,
        )


def _compare(key: str, old: Any, new: Any, found: list[tuple[str, Any, Any]]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            _compare(f"{key}.{name}".lstrip("."), old.get(name), new.get(name), found)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            _compare(f"{key}.{number}", one, other, found)
    elif old != new:
        found.append((key, old, new))
