"""What a fold may be scored on: images that its run has not seen. The folds are made of all images of an
index, so a split of that index, or of a copy of it, is no test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from dermseg.data.index import EXCLUDED, IndexRow, read_index
from dermseg.data.splits import image_name
from dermseg.errors import ConfigError
from dermseg.evaluation.evaluate import select_split
from dermseg.experiments.settled import DONE, evaluation_folder
from dermseg.experiments.subsets import INDEXES
from dermseg.experiments.suite import Cell, SuiteConfig, TestConfig, indexes_of
from dermseg.training.checkpoint import CONFIG
from dermseg.training.config import RunConfig, expand, load_config


def check_left_out(suite: SuiteConfig, cell: Cell, config: RunConfig) -> None:
    """Refuse to evaluate a fold on images that the folds are made of: other folds are trained on them.

    Raises
    ------
    ConfigError
        A data set of the suite has some.
    """
    tests = [test for test in suite.evaluate if test.index]
    if cell.fold is None or not tests:
        return
    indexes = indexes_of((*config.data.train, *config.data.val))
    folded = [row for index in indexes for row in _rows(index) if row.split != EXCLUDED]
    for test in tests:
        met, total = _images_met(test, folded)
        if met:
            raise ConfigError(
                f"evaluate '{test.name}': the folds are made of {met} of the {total} images of {test.index}, "
                f"and split '{test.split}' of it is trained on",
                hint="leave its index out: each fold is then evaluated on its own test part",
            )


def check_not_seen(folder: Path, test: TestConfig) -> None:
    """Refuse to evaluate the run of a fold on images that it was trained on or chosen by.

    Parameters
    ----------
    folder
        Of the run; what is no fold of a suite may be evaluated on anything.

    Raises
    ------
    ConfigError
        The data set has some.
    """
    done = folder / DONE
    if not test.index or not done.exists():
        return
    if json.loads(done.read_text(encoding="utf-8")).get("fold") is None:
        return
    data = load_config(folder / CONFIG).data
    seen = [
        row
        for source in (*data.train, *data.val)
        for row in _rows(_fold_index(folder, expand(source.index)))
        if row.split == source.split
    ]
    met, total = _images_met(test, seen)
    if met:
        before = evaluation_folder(folder, test)
        raise ConfigError(
            f"this fold was trained on, or chosen by, {met} of the {total} images of split '{test.split}'",
            file=test.index,
            hint="evaluate folds on images that are in none of them"
            + (f", and delete {before}, which an older version made" if before.exists() else ""),
        )


def _rows(index: Path) -> Sequence[IndexRow]:
    """The rows of an index: a suite asks for the same few with every run."""
    return _read(index.absolute(), index.stat().st_mtime_ns if index.exists() else 0)


@lru_cache(maxsize=32)
def _read(index: Path, _: int) -> Sequence[IndexRow]:
    return read_index(index)


def _fold_index(run: Path, index: Path) -> Path:
    """The index of a fold, which goes along where the suite's folder is moved; its name tells its content."""
    moved = run.absolute().parent.parent / INDEXES / index.name
    return moved if not index.exists() and moved.exists() else index


def _images_met(test: TestConfig, known: Iterable[IndexRow]) -> tuple[int, int]:
    """How many images of a data set are known, by their name or content, and how many it has."""
    rows, _ = select_split(_rows(expand(test.index or "")), test.split)
    names, contents = set(), set()
    for row in known:
        names.add(image_name(row))
        contents.add(row.sha256)
    met = [row for row in rows if image_name(row) in names or (row.sha256 and row.sha256 in contents)]
    return len(met), len(rows)
