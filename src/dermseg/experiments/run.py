"""Run a suite: train what is not trained, evaluate what is not evaluated; interrupted at any point, go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dermseg.data.index import merge, read_index
from dermseg.errors import ConfigError, DermsegError, UsageError
from dermseg.evaluation.evaluate import select_split
from dermseg.evaluation.output import METRICS_FILE, write_folder
from dermseg.experiments.left_out import check_left_out, check_not_seen
from dermseg.experiments.predict import RunModel
from dermseg.experiments.settled import (
    DONE,
    check_evaluation,
    check_unchanged,
    evaluation_folder,
    images_digest,
    images_of,
    one_or_all,
)
from dermseg.experiments.subsets import INDEXES, fold_index, fraction_index, size_of
from dermseg.experiments.suite import (
    Cell,
    SuiteConfig,
    TestConfig,
    cells,
    indexes_of,
    run_config,
    tested_indexes,
)
from dermseg.files import write_json
from dermseg.training.check import check_run
from dermseg.training.checkpoint import BEST, CONFIG
from dermseg.training.config import ModelConfig, RunConfig, expand
from dermseg.training.run import train
from dermseg.words import counted


def run_suite(
    suite: SuiteConfig, path: Path, output: Path, *, quiet: bool = False, report: Callable[[str], None]
) -> list[tuple[str, str]]:
    """Train and evaluate every cell; returns (run, reason) of those that failed.

    A run that fails does not keep the others from running.

    Raises
    ------
    DermsegError
        A configuration that asks for what cannot be, data to evaluate on that are missing, or runs and
        evaluations that were made with other settings: all are found before any work starts.
    """
    work = [(cell, run_config(suite, path, cell)) for cell in cells(suite)]
    with TemporaryDirectory() as scratch:  # nothing is written to the suite's folder before all is well
        for cell, config in work:
            check_left_out(suite, cell, config)
            check_unchanged(suite, cell, config, output / "runs" / cell.name)
            if not (output / "runs" / cell.name / DONE).exists():
                _check_cell(suite, cell, config, Path(scratch))
    for test in suite.evaluate:
        if test.index:
            select_split(read_index(expand(test.index)), test.split)
    failed = []
    for number, (cell, config) in enumerate(work, 1):
        folder = output / "runs" / cell.name
        try:
            if not (folder / DONE).exists():
                report(f"[{number}/{len(work)}] {cell.name}")
                _train(suite, cell, config, folder, output, quiet=quiet)
            for test in suite.evaluate:
                evaluate_run(folder, test)
        except Exception as error:  # too little memory is an error of torch, a full disk one of the system
            failed.append((cell.name, reason(error)))
            report(f"failed: {cell.name}: {failed[-1][1]}")
    return failed


def _check_cell(suite: SuiteConfig, cell: Cell, config: RunConfig, scratch: Path) -> None:
    """Look at all that a run needs. Folds take the place of an index's splits, which it need not have."""
    named: dict[str | None, str] = {}
    try:
        cut = _with_subsets(suite, replace(cell, fraction=None), config, scratch)
        for part, whole in ((cut.data.train, config.data.train), (cut.data.val, config.data.val)):
            named |= {made.index: str(expand(source.index)) for made, source in zip(part, whole, strict=True)}
        check_run(cut)
        if cell.fraction is not None:
            _check_fraction(cell.fraction, cut)
    except DermsegError as error:
        error.message = f"{cell.name}: {error.message}"
        error.file = named.get(error.file, error.file)  # the folds looked at here are gone in a moment
        raise


def _check_fraction(fraction: float, config: RunConfig) -> None:
    for source in config.data.train:
        images = sum(row.split == source.split for row in read_index(expand(source.index)))
        if not size_of(fraction, images):
            raise ConfigError(
                f"fraction {fraction:g} of the {images} images of split '{source.split}' is none of them",
                file=expand(source.index),
                hint=f"fraction {1 / images:.2g} is one",
            )


def _train(
    suite: SuiteConfig, cell: Cell, config: RunConfig, folder: Path, output: Path, *, quiet: bool
) -> None:
    begin = time.monotonic()
    progress = train(
        _with_subsets(suite, cell, config, output / INDEXES),
        folder,
        resume=(folder / CONFIG).exists(),
        quiet=quiet,
    )
    record = {
        "variations": dict(cell.variations),
        "seed": cell.seed,
        "fraction": cell.fraction,
        "fold": cell.fold,
        "folds": None if cell.fold is None else suite.folds,
        "images": images_of(config, cell),
        "train_seconds": round(progress.seconds, 1),
        "wall_seconds": round(time.monotonic() - begin, 1),
        "best_val_dice": progress.best_dice,
        "epochs": progress.epoch,
    }
    write_json(folder / DONE, record)


def _with_subsets(suite: SuiteConfig, cell: Cell, config: RunConfig, folder: Path) -> RunConfig:
    """The configuration with indexes of the cell's fraction or fold."""
    data = config.data.model_dump()
    every = indexes_of((*config.data.train, *config.data.val))
    for part in ("train", "val"):
        for source in data[part]:
            index = expand(source["index"]).absolute()
            if cell.fold is not None and suite.folds is not None:
                others = [path for path in every if path != index]
                index = fold_index(index, cell.fold, suite.folds, folder, others)
            if cell.fraction is not None and cell.fraction < 1 and part == "train":
                index = fraction_index(index, source["split"], cell.fraction, folder)
            source["index"] = str(index)
    return config.model_copy(update={"data": type(config.data).model_validate(data)})


def evaluate_run(folder: Path, test: TestConfig) -> Path:
    """Evaluate one run on one data set, unless that is done; returns the folder of the evaluation.

    A test without an index is about the images of that split in all indexes that the run was trained on.

    Raises
    ------
    DermsegError
        The run is that of a fold and has seen images of the data set, no image can be scored, or there is an
        evaluation of this name on another index, split or images.
    """
    target = evaluation_folder(folder, test)
    check_not_seen(folder, test)
    check_evaluation(folder, test)
    if (target / METRICS_FILE).exists():
        return target
    model = RunModel(folder)
    indexes = tested_indexes(model.config, test)
    rows, without_mask = select_split(merge(*map(read_index, indexes)), test.split)
    begin = time.monotonic()
    evaluation = model.evaluate(rows)
    left_out = f" ({without_mask} without a mask left out)" if without_mask else ""
    summary: dict[str, Any] = {
        **evaluation.summary(),
        "protocol": {
            "text": f"{counted(evaluation.n, 'image')} of {test.name}, split {test.split}{left_out}, "
            f"{_masks(model.config.model)}at the mask's own size, "
            "threshold 0.5, no post-processing, means over images",
            "index": one_or_all([str(index) for index in indexes]),
            "split": test.split,
            "images": one_or_all([images_digest(index, test.split) for index in indexes]),
            "images_without_mask": without_mask,
        },
        "model": {
            "architecture": model.config.model.architecture,
            "parameters": model.parameters,
            "input": model.preprocessing.height,
        },
        "seconds": round(time.monotonic() - begin, 1),
    }
    write_folder(target, evaluation, summary)
    return target


def _masks(model: ModelConfig) -> str:
    """Which of several masks an evaluation is about."""
    if model.masks == 1:
        return ""
    return (
        "all classes as one, " if model.outputs == "softmax" else f"the first of {model.masks} attributes, "
    )


def reason(error: Exception) -> str:
    """Why a run failed, in one line; errors of others do not always say of which kind they are."""
    return str(error) if isinstance(error, DermsegError) else f"{type(error).__name__}: {error}".rstrip(": ")


def find_runs(folder: Path) -> Iterator[Path]:
    """Run folders below a folder, by their configuration and checkpoint.

    Raises
    ------
    UsageError
        There is none.
    """
    found = sorted(p.parent for p in folder.rglob(BEST) if (p.parent / CONFIG).exists())
    if not found:
        raise UsageError("no runs below this folder", file=folder, hint=f"a run has config.yaml and {BEST}")
    yield from found
