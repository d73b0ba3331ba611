"""``dermseg evaluate``: a model on a split of an index."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dermseg.apps.cli.common import (
    JsonOption,
    ModelOption,
    goes_on,
    new_app,
    print_json,
    say,
    say_intervals,
    say_left_out,
)
from dermseg.words import counted

if TYPE_CHECKING:
    from dermseg.data.index import IndexRow
    from dermseg.inference.predictor import Model

app = new_app()


class Reference(StrEnum):
    """Which masks of an image count, where there are several."""

    first = "first"
    all = "all"


@app.command()
def evaluate(
    *,
    data: Annotated[Path, typer.Option("--data", help="Index of the data set (from 'dermseg data import').")],
    split: Annotated[str, typer.Option(help="Split to score; 'all' takes all but 'excluded'.")] = "test",
    model: ModelOption = "default",
    variant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Variant of the model ('dermseg models info' lists them)."),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="onnxruntime (default), openvino, cuda, torch, or auto as in segment."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for report.html, per_image.csv and metrics.json."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="Lesion is where the probability is at least P (0 to 1)."),
    ] = None,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Average over 8 flips and turns: steadier, 8 times the network time."),
    ] = False,
    reference: Annotated[
        Reference, typer.Option(help="Compare with the first mask of an image, or with all of them.")
    ] = Reference.first,
    metadata: Annotated[
        Path | None,
        typer.Option(help="CSV with diagnosis, site, age, sex, source or annotations per image, for groups."),
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also spoil every image in 14 ways and 5 severities: 71 times the work."
        ),
    ] = False,
    log_test: Annotated[
        Path | None, typer.Option(help="CSV file to which one line on this evaluation is appended.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an evaluation in the folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a model over a split of a data set and compare with its masks, at the masks' own size.

    Images that cannot be scored are listed and are in no mean; the exit code is then 1.
    """
    from dermseg.apps.cli.counter import ImageCounter
    from dermseg.data.index import read_index
    from dermseg.data.splits import regroup
    from dermseg.evaluation.evaluate import evaluate_rows, select_split
    from dermseg.evaluation.metadata import attach, check_names, read_metadata
    from dermseg.evaluation.output import (
        ROBUSTNESS,
        append_test_log,
        check_test_log,
        format_summary,
        prepare_folder,
        remove_left_over,
        summarise,
    )
    from dermseg.evaluation.robustness import evaluate_robustness
    from dermseg.inference.predictor import load_model
    from dermseg.report.folder import write_evaluation

    rows, without_mask = select_split(regroup(read_index(data)), split)
    facts = None if metadata is None else read_metadata(metadata)
    if facts is not None:
        check_names(rows, facts)
    loaded = load_model(model, variant=variant, runtime=runtime)
    if log_test is not None:
        check_test_log(log_test)
    if output is not None:
        prepare_folder(output, overwrite=overwrite)
    kept = "Nothing was written: means of the first images are not those of the split."
    with goes_on(kept), ImageCounter("evaluating", len(rows)) as progress:
        evaluation = evaluate_rows(
            loaded,
            rows,
            references=reference.value,
            threshold=threshold,
            tta=tta,
            progress=progress.advance,
        )
    if facts is not None:
        evaluation = attach(evaluation, facts)
    spoilt, interrupted = None, False
    if robustness and evaluation.scores:
        with ImageCounter("spoiling", len(rows)) as progress:
            try:
                spoilt = evaluate_robustness(
                    loaded, rows, threshold=threshold, tta=tta, progress=progress.advance
                )
            except KeyboardInterrupt:  # what the images gave as they are is written all the same
                interrupted = True
    say_intervals(evaluation.n)
    described = describe_model(loaded)
    protocol = _protocol(
        loaded,
        rows,
        n=evaluation.n,
        index=data,
        split=split,
        reference=reference.value,
        threshold=threshold,
        tta=tta,
    )
    protocol["images_without_mask"] = without_mask
    summary = {
        **summarise(evaluation, spoilt),
        "protocol": protocol,
        "model": described,
    }
    if log_test is not None:
        append_test_log(
            log_test,
            summary,
            command=["dermseg", "evaluate", *sys.argv[2:]],
            model_sha256=described["sha256"],
            index=data,
            split=split,
        )
    if output is not None:
        if spoilt is None:
            remove_left_over(output, (ROBUSTNESS,))
        else:
            spoilt.write_csv(output / ROBUSTNESS)
        title = f"{described['name']} {described['version']} on {', '.join(protocol['datasets'])}, {split}"
        write_evaluation(
            output,
            title,
            evaluation,
            summary,
            predict=lambda source: loaded.segment(source, threshold=threshold, tta=tta).mask,
            rows=rows,
        )
    if as_json:
        print_json(summary)
    else:
        say(f"{described['name']} {described['version']}: {protocol['text']}\n")
        say(format_summary(summary))
    if interrupted:
        say("Stopped. The evaluation is whole, but without robustness.")
        raise KeyboardInterrupt
    say_left_out(split, without_mask, summary["failures"])


def describe_model(model: Model) -> dict[str, Any]:
    """Name, version, variant and hash: what the figures belong to."""
    return {
        "name": model.card.name,
        "version": model.card.version,
        "architecture": model.card.architecture,
        "variant": model.variant,
        "runtime": model.session.runtime,
        "sha256": model.sha256,
    }


def _protocol(
    model: Model,
    rows: list[IndexRow],
    *,
    n: int,
    index: Path,
    split: str,
    reference: str,
    threshold: float | None,
    tta: bool,
) -> dict[str, Any]:
    """What was compared with what, and how: the words to quote beside the figures."""
    datasets = sorted({row.dataset or index.stem for row in rows})
    used = model.card.postprocessing.threshold if threshold is None else threshold
    masks = "first mask of each" if reference == "first" else "mean over all masks of each"
    how = "" if model.session.runtime == "onnxruntime" else f", {model.session.runtime}"
    text = (
        f"{counted(n, 'image')} of {', '.join(datasets)}, split {split}, {masks}, at the mask's own size, "
        f"threshold {used:g}{', test-time augmentation' if tta else ''}{how}, means over images"
    )
    return {
        "text": text,
        "datasets": datasets,
        "index": f"{index.absolute().parent.name}/{index.name}",
        "split": split,
        "reference": reference,
        "resolution": "reference",
        "averaging": "metrics: mean over images; pooled: all pixels together",
        "threshold": used,
        "tta": tta,
    }
