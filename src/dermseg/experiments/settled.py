"""Whether what lies in a suite's folder was made with the settings that the suite has now."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dermseg.data.index import read_index
from dermseg.data.splits import group_of
from dermseg.errors import ConfigError
from dermseg.evaluation.output import METRICS_FILE
from dermseg.experiments.suite import Cell, SuiteConfig, TestConfig, folder_name, tested_indexes
from dermseg.training.checkpoint import CONFIG
from dermseg.training.config import RunConfig, SourceConfig, expand, load_config
from dermseg.training.resolve import differences, digest_ids

DONE = "suite.json"
_SHOWN = 3
_KEEP_OR_DELETE = "another -o keeps both; or delete this folder, and it is made again"


def check_unchanged(suite: SuiteConfig, cell: Cell, config: RunConfig, folder: Path) -> None:
    """Refuse a run, finished or not, that other settings made, and evaluations on another index or split.

    Parameters
    ----------
    config
        Of the run as the suite has it now, before its training data are cut down.
    folder
        Of the run; there may be none yet.

    Raises
    ------
    ConfigError
        The first settings that differ, with their old and new values.
    """
    if not (folder / CONFIG).exists():
        return
    before = load_config(folder / CONFIG)
    _refuse(cell.name, folder, differences(_with_own_indexes(before, suite, cell, config), config))
    if (folder / DONE).exists():
        record = json.loads((folder / DONE).read_text(encoding="utf-8"))
        _refuse_other_images(cell.name, folder, record.get("images"), images_of(config, cell))
    for test in suite.evaluate:
        check_evaluation(folder, test)


def _refuse(name: str, folder: Path, changed: Sequence[tuple[str, Any, Any]]) -> None:
    if changed:
        shown = [f"{key} was {_short(old)}, is {_short(new)}" for key, old, new in changed[:_SHOWN]]
        more = f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise ConfigError(
            f"{name} was made with other settings: {'; '.join(shown)}{more}",
            file=folder,
            hint=_KEEP_OR_DELETE,
        )


def images_of(config: RunConfig, cell: Cell) -> list[str]:
    """Per source of train and val what its images are; a fold takes those of every split."""
    return [
        images_digest(expand(source.index), source.split if cell.fold is None else None)
        for source in (*config.data.train, *config.data.val)
    ]


def images_digest(index: Path, split: str | None) -> str:
    """Changes where a split gets other images or groups, not where the index or its images are moved."""
    return _images_digest(index.absolute(), split, index.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _images_digest(index: Path, split: str | None, _: int) -> str:
    rows = [row for row in read_index(index) if split in (None, row.split)]
    return digest_ids(sorted(f"{row.dataset}/{row.image_id}/{group_of(row)}" for row in rows))


def _refuse_other_images(name: str, folder: Path, old: Any, new: Any) -> None:
    """Older records do not say what was in an index."""
    if old is not None and old != new:
        raise ConfigError(
            f"{name} was made with other images: an index has changed since, or its splits have",
            file=folder,
            hint=f"put the index back; {_KEEP_OR_DELETE}",
        )


def _with_own_indexes(before: RunConfig, suite: SuiteConfig, cell: Cell, config: RunConfig) -> RunConfig:
    """The run's configuration with the suite's indexes where its own are the parts that the cell asks for."""
    data = {}
    for part in ("train", "val"):
        old, new = getattr(before.data, part), getattr(config.data, part)
        cut = [
            source.model_copy(update={"index": wanted.index})
            if _is_part(source, wanted, suite, cell, part)
            else source
            for source, wanted in zip(old, new, strict=False)
        ]
        data[part] = (*cut, *old[len(cut) :])
    return before.model_copy(update={"data": before.data.model_copy(update=data)})


def _is_part(source: SourceConfig, wanted: SourceConfig, suite: SuiteConfig, cell: Cell, part: str) -> bool:
    """Whether an index is the fold or fraction of ``wanted``, by the names that ``subsets`` gives."""
    name = re.escape(expand(wanted.index).stem)
    digest = r"(?:-[0-9a-f]{8})?"
    if cell.fold is not None:
        name += rf"{digest}-fold{cell.fold + 1}of{suite.folds}"
    if cell.fraction is not None and cell.fraction < 1 and part == "train":
        name += rf"{digest}-{re.escape(wanted.split)}-{re.escape(f'{100 * cell.fraction:g}')}pct"
    if name == re.escape(expand(wanted.index).stem):
        return False  # not cut down: the index is that of the suite itself
    return re.fullmatch(name, Path(source.index).stem) is not None


def evaluation_folder(run: Path, test: TestConfig) -> Path:
    """Where the evaluation of a run on a data set lies."""
    return run / "evaluation" / folder_name(test)


def check_evaluation(run: Path, test: TestConfig) -> None:
    """Refuse a finished evaluation of this name on another index (older versions do not say it) or split.

    Raises
    ------
    ConfigError
        There is one.
    """
    folder = evaluation_folder(run, test)
    if not (folder / METRICS_FILE).exists():
        return
    protocol = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))["protocol"]
    wanted: dict[str, Any] = {"split": test.split}
    own = tested_indexes(load_config(run / CONFIG), test)
    if test.index or len(own) > 1:  # older versions scored the first one of several only
        wanted["index"] = one_or_all([str(index) for index in own])
    changed = [
        (key, protocol[key], value) for key, value in wanted.items() if protocol.get(key, value) != value
    ]
    name = f"the evaluation '{test.name}' of {run.name}"
    _refuse(name, folder, changed)
    if test.index:
        _refuse_other_images(
            name, folder, protocol.get("images"), images_digest(expand(test.index), test.split)
        )


def one_or_all(values: Sequence[str]) -> str | list[str]:
    """As a protocol has it: text for one index, a list for several."""
    return values[0] if len(values) == 1 else list(values)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:60]} ... {text[-36:]}"
