"""``dermseg score``: masks against reference masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermseg.apps.cli.common import JsonOption, new_app, print_json, say, say_intervals
from dermseg.words import counted

app = new_app()


@app.command()
def score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="Folder, zip or glob of predicted masks, or an output folder of 'dermseg segment'.",
        ),
    ],
    references: Annotated[
        Path,
        typer.Argument(
            metavar="REFERENCES", help="The same of reference masks; a glob may be 'data/*_mask.png'."
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for report.html, per_image.csv and metrics.json."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count a missing prediction as an empty mask.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an evaluation in the folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare masks with reference masks: the metrics of the ISIC challenges and more.

    Files are matched by name: X.png, X_segmentation.png and sub/X_mask.png are the same image. A mask of
    another size than its reference is listed as failed and is in no mean; the exit code is then 1.
    """
    from dermseg.apps.cli.counter import ImageCounter
    from dermseg.evaluation.matching import match_paths
    from dermseg.evaluation.output import (
        FAILURES,
        FIGURE,
        PAGE,
        ROBUSTNESS,
        format_summary,
        prepare_folder,
        remove_left_over,
        summarise,
        write_folder,
    )
    from dermseg.evaluation.score import score_sources
    from dermseg.files import atomic_write
    from dermseg.report.evaluation import render_evaluation

    if output is not None:
        prepare_folder(output, overwrite=overwrite)
    pairing = match_paths(predictions, references)
    total = len(pairing.pairs) + len(pairing.missing)
    with ImageCounter("scoring", total) as progress:
        evaluation, notes = score_sources(pairing, missing_is_empty=allow_missing, progress=progress.advance)
    called = [path.absolute().name for path in (predictions, references)]  # '.' has a name too
    say_intervals(evaluation.n)
    missing = counted(len(pairing.missing), "missing prediction")
    summary = {
        **summarise(evaluation),
        "missing": [image_id for image_id, _ in pairing.missing],
        "extra": pairing.extra,
        "notes": notes,
        "protocol": {
            "text": f"{counted(evaluation.n, 'image')}, masks compared at the references' own size, "
            "means over images" + (f", {missing} counted as empty" if pairing.missing else ""),
            "predictions": called[0],
            "references": called[1],
            "resolution": "reference",
            "averaging": "metrics: mean over images; pooled: all pixels together",
            "missing_predictions": "empty mask" if allow_missing else "refused",
        },
    }
    if output is not None:
        remove_left_over(output, (FIGURE, FAILURES, ROBUSTNESS))
        page = render_evaluation(" against ".join(called), evaluation, summary)
        atomic_write(output / PAGE, page.encode())
        write_folder(output, evaluation, summary)
    if as_json:
        print_json(summary)
    else:
        say(format_summary(summary))
    for failure in evaluation.failures:
        say(f"failed: {failure.image_id}: {failure.reason}")
    if pairing.missing:
        say(f"{missing} counted as empty")
    if pairing.extra:
        extra = counted(len(pairing.extra), "prediction")
        say(f"{extra} without a reference left out, first: {pairing.extra[0]}")
    if notes:
        say(f"{counted(len(notes), 'note')} on masks, first: {notes[0]}")
    if evaluation.failures:
        raise typer.Exit(1)
