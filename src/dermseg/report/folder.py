"""The folder of an evaluation, with what a person looks at: figures, report page, table, summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dermseg.data.index import IndexRow
from dermseg.evaluation.failures import describe_image, worst_images
from dermseg.evaluation.figure import Predict, draw_examples, draw_gallery, draw_panels
from dermseg.evaluation.output import FAILURES, FIGURE, METRICS_FILE, PAGE, PER_IMAGE
from dermseg.evaluation.table import Evaluation
from dermseg.files import atomic_write, write_json
from dermseg.images.overlay import encode_jpeg, encode_png
from dermseg.report.evaluation import render_evaluation


def write_evaluation(
    folder: Path,
    title: str,
    evaluation: Evaluation,
    summary: Mapping[str, Any],
    *,
    predict: Predict,
    rows: Sequence[IndexRow],
) -> None:
    """Write all files; the summary last, so that a folder with a summary is complete.

    The table first: a disk that has no room for the pictures is no reason to lose the figures.

    Parameters
    ----------
    folder
        That exists.
    title
        Of the page: what was evaluated on what.
    summary
        `summarise` with ``protocol`` and ``model``.
    predict, rows
        What was evaluated, for pictures of the best, the median and the worst images.
    """
    evaluation.write_csv(folder / PER_IMAGE)
    atomic_write(folder / FIGURE, encode_png(draw_examples(predict, rows, evaluation)))
    worst = worst_images(evaluation)
    panels = draw_panels(predict, rows, worst)
    gallery = draw_gallery([("Worst", panels[:4]), ("", panels[4:8])])
    atomic_write(folder / FAILURES, encode_jpeg(gallery))
    panels = [replace(p, caption=describe_image(s)) for p, s in zip(panels, worst, strict=True)]
    atomic_write(folder / PAGE, render_evaluation(title, evaluation, summary, panels).encode())
    write_json(folder / METRICS_FILE, summary)
