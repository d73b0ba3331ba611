"""A run on the validation images it was chosen by: each image, for people to look at."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermseg.data.index import IndexRow
from dermseg.errors import DataError
from dermseg.evaluation.figure import Predict
from dermseg.evaluation.output import summarise
from dermseg.evaluation.table import Evaluation
from dermseg.experiments.predict import THRESHOLD, RunModel
from dermseg.training.rows import select_rows

VALIDATION = "validation"
"""Folder of the report in a run folder."""


@dataclass(frozen=True, eq=False)
class Validated:
    """A run's evaluation, and what its pictures are drawn from.

    Attributes
    ----------
    title, summary
        Of the report, see ``report.folder.write_evaluation``.
    predict, rows
        From an image file to its mask, and the images.
    """

    title: str
    evaluation: Evaluation
    summary: dict[str, Any]
    predict: Predict
    rows: list[IndexRow]


def evaluate_validation(folder: Path) -> Validated:
    """Evaluate a run folder, at the masks' own size, threshold 0.5, without post-processing.

    As the checkpoint was chosen by these images, it is a little better on them than on others.

    Raises
    ------
    DermsegError
        The network has several classes, the run no checkpoint, or its images cannot be read and scored.
    """
    model, begin = RunModel(folder), time.monotonic()
    if model.config.model.masks > 1:
        raise DataError("it is for networks of one class")
    rows: list[IndexRow] = []
    for source in model.config.data.val:
        rows += [row for row in select_rows(source, model.config.seed) if row.masks]
    evaluation = model.evaluate(rows)
    if not evaluation.scores:
        raise DataError(f"none of {len(rows)} images can be scored: {evaluation.failures[0].reason}")
    datasets = sorted({row.dataset for row in rows})
    summary: dict[str, Any] = {
        **summarise(evaluation),
        "protocol": {
            "text": f"{evaluation.n} validation images of {', '.join(datasets)}, by which the checkpoint was "
            f"chosen, at the mask's own size, threshold {THRESHOLD}, no post-processing, means over images",
            "datasets": datasets,
            "split": ", ".join(sorted({source.split for source in model.config.data.val})),
        },
        "model": {
            "name": model.config.name,
            "architecture": model.config.model.architecture,
            "parameters": model.parameters,
            "input": model.preprocessing.height,
        },
        "seconds": round(time.monotonic() - begin, 1),
    }
    title = f"{model.config.name} on its validation images"
    return Validated(title, evaluation, summary, model.mask, rows)
