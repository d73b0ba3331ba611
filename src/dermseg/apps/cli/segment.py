"""``dermseg segment``: the main job, from images to masks, overlays, table and report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dermseg.apps.cli.common import (
    InputsArgument,
    ModelOption,
    new_app,
    note,
    print_json,
    refuse_unused,
    say,
)
from dermseg.apps.cli.interrupt import stop_on_interrupt
from dermseg.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from dermseg.inference.batch import BatchResult
    from dermseg.inference.options import BatchOptions
    from dermseg.inference.predictor import Model
    from dermseg.inference.stages import Encoder

app = new_app()
_SHOWN_FAILURES = 5


@app.command()
def segment(
    inputs: InputsArgument,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="Folder for everything that is written.")
    ],
    *,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in OUT; failed images are tried again, new ones done."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove what an earlier run wrote in OUT, then start.")
    ] = False,
    model: ModelOption = "default",
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="Lesion is where the probability is at least P (0 to 1)."),
    ] = None,
    lesions: Annotated[
        str, typer.Option(metavar="largest|all", help="Keep the largest lesion, or each with its own label.")
    ] = "largest",
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Average over 8 flips and turns: steadier, 8 times the network time."),
    ] = False,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty", help="Also write maps of 20 passes (mean, std, entropy), and the margins."
        ),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="A",
            help="Level of the margins: the share of the lesion that may lie outside the outer line (0.1).",
        ),
    ] = None,
    save: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="What to write, with commas: mask (PNG, the input's size), overlay (JPEG to look at, at "
            "most 1800 px), probability (16-bit PNG, the input's size), labelme (outlines to correct); of "
            "DICOM also dicom-seg (segmentation), dicom-sr (measurements), dicom-sc (overlay), "
            "dicom-probability.",
        ),
    ] = "mask,overlay",
    allow_truncated: Annotated[
        bool,
        typer.Option(
            "--allow-truncated", help="Use what is there of JPEG, PNG and BMP files that are cut off."
        ),
    ] = False,
    max_megapixels: Annotated[float, typer.Option(metavar="MP", help="Refuse larger images.")] = 100.0,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Images worked on at once; default: the CPUs.")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Variant of the model ('dermseg models info' lists them)."),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="onnxruntime, openvino, cuda or torch; auto takes the fastest that is installed.",
        ),
    ] = "auto",
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            help="ray: on a cluster; INPUT may be manifests (.txt, .csv, .parquet), OUT a URL.",
        ),
    ] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON on stdout.")] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log as JSON lines on stderr, one per image, no progress bar.")
    ] = False,
) -> None:
    """Find the lesion in images: 'dermseg segment photos/ -o out', then open out/report.html.

    Writes masks/, overlays/, results.csv, report.html and run.json into OUT. Ctrl-C, or any other end,
    loses nothing: the same command with --resume goes on. Exit code 0: all done; 1: some images failed
    (the rest is done, results.csv has the reasons); 2: wrong usage. Not a medical device.
    """
    from dermseg.images.find import fixed_part, left_out
    from dermseg.images.roles import find_photographs
    from dermseg.images.sources import is_url
    from dermseg.inference.bundle import load_bundle
    from dermseg.inference.folder import earlier_runtime
    from dermseg.inference.outputs import output_files, parse_save, result_folders
    from dermseg.inference.pipeline import plan_work
    from dermseg.inference.runtimes import (
        AUTO,
        check_runtime,
        choose_runtime,
        open_session,
        select_variant,
    )

    chosen: dict[str, Any] = {
        "threshold": threshold,
        "lesions": lesions,
        "tta": tta,
        "max_megapixels": max_megapixels,
        "allow_truncated": allow_truncated,
        "uncertainty": uncertainty,
    }
    if margin is not None:
        refuse_unused(
            {"--margin": not uncertainty}, "has no effect without --uncertainty", hint="add --uncertainty"
        )
        chosen["margin"] = margin
    if engine not in ("local", "ray"):
        raise UsageError(f"--engine: unknown value '{engine}'", hint="local or ray")
    if engine == "ray":
        from dermseg.apps.cli.segment_ray import segment_on_ray

        with stop_on_interrupt() as stop:
            summary = segment_on_ray(
                inputs,
                output,
                save,
                chosen,
                model=model,
                variant=variant,
                runtime=runtime,
                workers=workers,
                resume=resume,
                overwrite=overwrite,
                log_json=log_json,
                stop=stop,
            )
        return _end(summary, as_json=as_json)
    if all(given.lower().endswith((".txt", ".csv", ".parquet")) for given in inputs):
        raise UsageError(f"'{inputs[0]}' is no image", hint="lists of images are read by --engine ray")
    if urls := [given for given in (*inputs, output) if is_url(given)]:
        raise UsageError(f"'{urls[0]}' is a URL", hint="URLs are for --engine ray")
    out = Path(output)
    if any(Path(given).is_dir() and os.path.realpath(given) == os.path.realpath(out) for given in inputs):
        raise UsageError("the output folder is an input too", file=out, hint="choose another one with -o")
    kinds = output_files("", parse_save(save), labels=lesions == "all", uncertainty=uncertainty)
    written = result_folders(out, kinds)
    for given in inputs:
        if len(left_out(fixed_part(given), written)) < len(written):
            raise UsageError(f"the results would go into '{given}'", hint="choose another folder with -o")
    if overwrite and (out / "labelme").is_dir():
        _keep_corrected(out / "labelme")
    sources, remarks = find_photographs(inputs, exclude=result_folders(out))
    for remark in remarks:
        note(remark, as_log=log_json)
    bundle = load_bundle(model)
    if check_runtime(runtime) == AUTO:
        # An earlier run goes on with what it began with, whatever is measured today.
        runtime = (resume and earlier_runtime(out)) or choose_runtime(bundle, variant, len(sources))
    # One process drives a CUDA device as well as several, which would each need their memory on it.
    plan = plan_work(len(sources), workers=workers, processes=1 if runtime == "cuda" else None)
    with ThreadPoolExecutor(1) as pool:
        # The network is made ready while Python imports OpenCV and the rest.
        named = select_variant(bundle, variant, runtime)
        opening = pool.submit(open_session, bundle, named, runtime, plan.network_threads)

        import cv2

        from dermseg.apps.cli.progress import JsonProgress, make_progress
        from dermseg.inference.batch import run_batch
        from dermseg.inference.options import BatchOptions
        from dermseg.inference.predictor import Model
        from dermseg.report.batch import write_batch_report
        from dermseg.uncertainty.margins import no_margins

        options = BatchOptions(**chosen, save=parse_save(save))
        network = Model(
            bundle, variant=named, runtime=runtime, threads=plan.network_threads, session=opening.result()
        )
    if uncertainty and margin is None and (why := no_margins(network.trust)):
        note(why, as_log=log_json)
    cv2.setNumThreads(1)  # images run side by side already; more threads would only wait for each other
    with stop_on_interrupt() as stop, make_progress(len(sources), log_json=log_json) as progress:
        result = run_batch(
            network,
            sources,
            out,
            options,
            plan=plan,
            encoders=_encoders(network, options, out),
            resume=resume,
            overwrite=overwrite,
            inputs=inputs,
            listener=progress,
            stop=stop,
        )
        if not result.interrupted:
            write_batch_report(result)
    summary = _summary(result)
    if isinstance(progress, JsonProgress):
        progress.log("end", **summary)
    else:
        _tell(result, options.save)
    _end(summary, as_json=as_json)


def _keep_corrected(folder: Path) -> None:
    """Hours of work would go with the run that they were begun from."""
    from dermseg.labeling.propose import corrected_below

    if corrected := corrected_below(folder):
        some = f"{len(corrected)}, such as {corrected[0].relative_to(folder)}"
        raise UsageError(
            f"--overwrite would remove outlines that people have corrected: {some}",
            file=folder,
            hint="move the folder away, or choose another one with -o",
        )


def _end(summary: dict[str, Any], *, as_json: bool) -> None:
    """The summary where it is wanted, and the exit code."""
    if as_json:
        print_json(summary)
    if summary["interrupted"]:
        raise typer.Exit(130)
    if summary["failed"] or summary.get("unfinished"):
        raise typer.Exit(1)


def _encoders(model: Model, options: BatchOptions, out: Path) -> list[Encoder]:
    """What makes the LabelMe and DICOM files, where ``--save`` asks for some."""
    from dermseg.inference.options import describe_model
    from dermseg.inference.outputs import DICOM_KINDS

    encoders: list[Encoder] = []
    if "labelme" in options.save:
        from dermseg.labeling.propose import LabelmeEncoder

        encoders.append(LabelmeEncoder(model, out))
    if not set(options.save) & set(DICOM_KINDS):
        return encoders
    try:
        from dermseg.dicom.write import DicomEncoder
    except ModuleNotFoundError:
        raise MissingExtraError("--save dicom-...", "dicom") from None
    shaping = {key: getattr(options, key) for key in ("threshold", "lesions", "tta")}
    return [*encoders, DicomEncoder(describe_model(model), shaping, datetime.now())]


def _summary(result: BatchResult) -> dict[str, Any]:
    summary: dict[str, Any] = {
        **result.counts,
        "processed": result.processed,
        "images_per_second": result.images_per_second,
        "interrupted": result.interrupted,
        "model": result.model,
        "outputs": str(result.out),
    }
    return summary


def _tell(result: BatchResult, save: Sequence[str]) -> None:
    """What happened and where to look, in paths as the user gave them."""
    from dermseg.apps.cli.progress import say_counts, say_failures, say_stopped
    from dermseg.inference.journal import read_entries
    from dermseg.inference.outputs import LAYOUT, MAPS, MARGINS, REPORT, RESULTS

    out = result.out
    if result.interrupted:
        say_stopped(result, len(result.order))
        return
    say_counts(result, "report")
    options = result.record["options"]
    kinds = [*save, *(["labels"] if options["lesions"] == "all" else [])]
    kinds += [*MAPS, *MARGINS] if options["uncertainty"] else []
    places = {LAYOUT[kind][0]: LAYOUT[kind][0] for kind in kinds} | {"table": RESULTS, "report": REPORT}
    for label, name in places.items():
        if (out / name).exists():  # of failed images, and of JPEGs as DICOM objects, there is nothing
            say(f"  {label:<15}{out / name}")
    if result.counts["failed"]:
        failed = (entry.row for entry in read_entries(out) if entry.row.status == "failed")
        shown = [(row.file, row.message) for row in islice(failed, _SHOWN_FAILURES)]
        say_failures(result, shown, RESULTS)
