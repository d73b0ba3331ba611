"""``dermseg compare``: models or finished evaluations, paired on the same images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dermseg.apps.cli.common import (
    JsonOption,
    goes_on,
    new_app,
    print_json,
    refuse_unused,
    say,
    say_intervals,
    say_left_out,
)
from dermseg.errors import UsageError
from dermseg.words import counted

if TYPE_CHECKING:
    from dermseg.data.index import IndexRow
    from dermseg.evaluation.table import Evaluation

app = new_app()


@app.command()
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="A B",
            help="Models (name, folder or zip), or folders of 'evaluate -o' or 'score -o'.",
        ),
    ],
    *,
    data: Annotated[
        Path | None, typer.Option("--data", help="Index of the data set; needed to run models.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to run models on (test).")] = None,
    metadata: Annotated[
        Path | None,
        typer.Option(help="CSV with diagnosis, site, age, sex, source or annotations per image, for groups."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for report.html, comparison.json and the models' tables."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a comparison in the folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two or more models on the same images: paired differences with intervals.

    The difference is the first minus the second. With more than two, each is compared with each and p-values
    are corrected after Holm. Images that none of them could score are listed and are in no figure; the exit
    code is then 1. Where only some of them could score an image, the comparison is refused.
    """
    from dermseg.data.index import read_index
    from dermseg.data.splits import regroup
    from dermseg.evaluation.compare import align
    from dermseg.evaluation.compare import compare as compare_evaluations
    from dermseg.evaluation.evaluate import select_split
    from dermseg.evaluation.metadata import attach, check_names, read_metadata
    from dermseg.evaluation.output import COMPARISON, PAGE, describe_intervals, prepare_folder
    from dermseg.files import atomic_write, write_json
    from dermseg.report.comparison import render_comparison, verdict
    from dermseg.report.page import MINUS

    labels = label(names)
    if all(map(_finished, names)):  # or it would seem that they were run on it
        refuse_unused(
            {"--data": data, "--split": split},
            "has no effect on finished evaluations, which have their images",
        )
    split = split or "test"
    facts = None if metadata is None else read_metadata(metadata)
    _check_names(names, data)
    rows, without_mask = ([], 0) if data is None else select_split(regroup(read_index(data)), split)
    if facts is not None and rows:
        check_names(rows, facts)
    if output is not None:
        prepare_folder(output, overwrite=overwrite, holds=(COMPARISON, PAGE))
    evaluations = dict(zip(labels, _evaluations(names, labels, rows, output), strict=True))
    evaluations = align(evaluations)  # first: facts are found by data set and name
    if facts is not None:
        evaluations = {name: attach(evaluation, facts) for name, evaluation in evaluations.items()}
    say_intervals(max(evaluation.n for evaluation in evaluations.values()))
    summary = compare_evaluations(evaluations)
    where = "finished evaluations" if data is None else f"{data.name}, split {split}"
    if without_mask:
        where += f"; {without_mask} without a mask left out"
    summary["protocol"] = {
        "text": f"{counted(summary['n'], 'image')} ({where}), paired by name and reference, "
        "means over images",
        "data": None if data is None else f"{data.absolute().parent.name}/{data.name}",
        "split": None if data is None else split,
        "images_without_mask": None if data is None else without_mask,
    }
    if output is not None:
        atomic_write(output / PAGE, render_comparison(evaluations, summary).encode())
        write_json(output / COMPARISON, summary)
    if as_json:
        print_json(summary)
    else:
        for pair in summary["pairs"]:
            say(_format(pair, "Wilcoxon's p" if len(summary["pairs"]) == 1 else "Wilcoxon's p after Holm"))
            # With the hyphen of the figures above: Windows' own encodings do not have the page's minus.
            say(verdict(pair).replace(MINUS, "-") + "\n")
        say(describe_intervals(summary))
    say_left_out(split, without_mask, summary["failures"])


def label(names: Sequence[str]) -> list[str]:
    """What each is called: its last part without .zip, or all of it where last parts repeat.

    Raises
    ------
    UsageError
        Fewer than two are named, or one twice.
    """
    if len(names) < 2:
        raise UsageError("a comparison needs at least two", hint="dermseg compare A B --data INDEX")
    paths = [Path(name).absolute() for name in names]  # the folder that one is in has a name too
    last = [path.stem if path.suffix.lower() == ".zip" else path.name for path in paths]
    for labels in (last, list(names)):
        if len(set(labels)) == len(labels):
            return labels
    raise UsageError("one of them is named twice")


def _evaluations(
    names: Sequence[str], labels: Sequence[str], rows: Sequence[IndexRow], output: Path | None
) -> Iterator[Evaluation]:
    """A table per name: read where there is one, made where a model is named."""
    from dermseg.apps.cli.counter import ImageCounter
    from dermseg.evaluation.evaluate import evaluate_rows
    from dermseg.evaluation.output import PER_IMAGE
    from dermseg.evaluation.table import read_per_image
    from dermseg.inference.predictor import load_model

    for name, called in zip(names, labels, strict=True):
        if _finished(name):
            yield read_per_image(Path(name) / PER_IMAGE)
            continue
        with goes_on("Nothing was compared."), ImageCounter(f"evaluating {called}", len(rows)) as progress:
            evaluation = evaluate_rows(load_model(name), rows, progress=progress.advance)
        if output is not None:
            evaluation.write_csv(output / f"{table_stem(called)}.{PER_IMAGE}")
        yield evaluation


def table_stem(label: str) -> str:
    """How a model's table is called: its label may be a path, on Windows with a drive."""
    return re.sub(r"[/\\:]", "_", label)


def _check_names(names: Sequence[str], data: Path | None) -> None:
    """A name that leads nowhere, or that nothing is there to run on, is said before the others are evaluated.

    Raises
    ------
    DermsegError
        There is one.
    """
    from dermseg.images.sources import DICOM_EXTENSIONS, IMAGE_EXTENSIONS
    from dermseg.inference.bundle import load_bundle

    finished = [_finished(name) for name in names]
    if data is None and not all(finished):
        model = names[finished.index(False)]
        hint = "--data INDEX says what to run it on"
        if Path(model).suffix.lower() in IMAGE_EXTENSIONS | DICOM_EXTENSIONS:
            hint = "'dermseg measure' measures lesions, 'dermseg score' compares masks of one image"
        raise UsageError(f"'{model}' is not a finished evaluation", hint=hint)
    for name, done in zip(names, finished, strict=True):
        if not done:
            load_bundle(name)


def _finished(name: str) -> bool:
    from dermseg.evaluation.output import PER_IMAGE

    return (Path(name) / PER_IMAGE).is_file()


def _format(pair: dict[str, Any], test: str) -> str:
    """The pair as lines for people; ``test`` is what the p-values are called."""
    lines = [
        f"{pair['a']} minus {pair['b']}",
        f"  {'':<20}{'a':>8}{'b':>9}{'a - b':>10}   {'95 % interval (t)':<22}{'(BCa)':<22}{test}",
    ]
    for name, found in pair["metrics"].items():
        difference = found["difference"]
        p = found["wilcoxon_p_holm"]
        digits = 2 if name.endswith("_px") else 4  # more would leave hundreds of pixels no room
        t, bca = (_ends(difference[key], digits) for key in ("ci95_clustered", "bca95"))
        whole = pair["metrics"]["dice"]["difference"]["n"]
        n = difference["n"]
        fewer = "" if n == whole else f", of {counted(n, 'image')}"  # without a scale, say
        lines.append(
            f"  {name:<20}{found['a']:>8.{digits}f}{found['b']:>9.{digits}f}"
            f"{difference['mean']:>+10.{digits}f}   {t:<22}{bca:<22}"
            f"{'unknown' if p is None else f'{p:.2g}'}{fewer}"
        )
    return "\n".join(lines)


def _ends(interval: Sequence[float] | None, digits: int) -> str:
    return "unknown" if interval is None else f"{interval[0]:+.{digits}f} to {interval[1]:+.{digits}f}"
