"""What a training leaves behind for people: its network on the validation images, as an evaluation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dermseg.data.index import IndexRow
from dermseg.errors import DataError
from dermseg.evaluation.output import summarise
from dermseg.evaluation.table import Evaluation
from dermseg.experiments.predict import THRESHOLD, RunModel
from dermseg.report.folder import write_evaluation
from dermseg.training.rows import select_rows

VALIDATION = "validation"


def report_run(folder: Path) -> Evaluation:
    """Evaluate a run on the validation images it was chosen by, into ``folder / "validation"``.

    At the masks' own size, threshold 0.5, without post-processing; the folder is like that of ``dermseg
    evaluate``. As the checkpoint was chosen by these images, it is a little better on them than on others.

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
    splits = ", ".join(sorted({source.split for source in model.config.data.val}))
    datasets = sorted({row.dataset for row in rows})
    summary: dict[str, Any] = {
        **summarise(evaluation),
        "protocol": {
            "text": f"{evaluation.n} validation images of {', '.join(datasets)}, by which the checkpoint was "
            f"chosen, at the mask's own size, threshold {THRESHOLD}, no post-processing, means over images",
            "datasets": datasets,
            "split": splits,
        },
        "model": {
            "name": model.config.name,
            "architecture": model.config.model.architecture,
            "parameters": model.parameters,
            "input": model.preprocessing.height,
        },
        "seconds": round(time.monotonic() - begin, 1),
    }
    target = folder / VALIDATION
    target.mkdir(exist_ok=True)
    title = f"{model.config.name} on its validation images"
    write_evaluation(target, title, evaluation, summary, predict=model.mask, rows=rows)
    return evaluation
