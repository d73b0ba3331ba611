"""The command line's side of ``dermseg segment --engine ray``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from dermseg.apps.cli.common import say
from dermseg.apps.cli.progress import JsonProgress, PlainProgress
from dermseg.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from dermseg.scale.ray_engine import RayResult


def check_extra() -> None:
    """Refuse to begin without the packages of ``[ray]``.

    Raises
    ------
    MissingExtraError
        One of them is not installed.
    """
    if not all(find_spec(name) for name in ("ray", "pyarrow", "fsspec")):
        raise MissingExtraError("--engine ray", "ray")


def segment_on_ray(
    inputs: Sequence[str],
    output: str,
    save: str,
    chosen: dict[str, Any],
    *,
    model: str,
    variant: str | None,
    runtime: str,
    workers: int | None,
    resume: bool,
    overwrite: bool,
    log_json: bool,
    stop: Event,
) -> dict[str, Any]:
    """Run the job, say how it went, and return the summary for ``--json``.

    ``chosen`` holds what ``BatchOptions`` takes besides ``save``.
    """
    check_extra()
    from dermseg.images.sources import is_url
    from dermseg.inference.bundle import is_bundled_name
    from dermseg.inference.options import BatchOptions
    from dermseg.inference.outputs import ENCODED_KINDS, parse_save, result_folders
    from dermseg.inference.predictor import load_model
    from dermseg.scale.manifest import list_inputs
    from dermseg.scale.ray_engine import run_on_ray

    if overwrite:
        raise UsageError(
            "--overwrite does not go with --engine ray",
            hint="remove the output, or choose another one with -o",
        )
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, got {workers}")
    options = BatchOptions(**chosen, save=parse_save(save))
    if others := [kind for kind in options.save if kind in ENCODED_KINDS]:
        raise UsageError(
            f"--save {','.join(others)} does not go with --engine ray",
            hint="mask, overlay and probability do",
        )
    listed = list_inputs(inputs, exclude=[] if is_url(output) else result_folders(Path(output)))
    # Not what is fastest on this machine: all machines must give the same masks.
    network = load_model(model, variant=variant, runtime=None if runtime == "auto" else runtime, threads=1)
    bundle = model if is_bundled_name(model) else str(Path(model).absolute())
    progress = JsonProgress(len(listed)) if log_json else PlainProgress(len(listed))

    def listener(part: int | None, counts: Counter[str]) -> None:
        if part is None:
            progress(None, counts)
            return
        progress.done, progress.failed = counts.total(), counts["failed"]
        if isinstance(progress, JsonProgress):
            progress.log("part", part=part, done=progress.done, failed=progress.failed)
        else:
            progress.tick()

    result = run_on_ray(
        network,
        bundle,
        listed,
        output,
        options,
        workers=workers,
        resume=resume,
        inputs=inputs,
        quiet=log_json,
        listener=listener,
        stop=stop,
    )
    summary = _summary(result)
    if isinstance(progress, JsonProgress):
        progress.log("end", **summary)
    else:
        _tell(result)
    return summary


def _summary(result: RayResult) -> dict[str, Any]:
    return {
        **result.counts,
        "processed": result.processed,
        "images_per_second": result.images_per_second,
        "interrupted": result.interrupted,
        "unfinished": result.unfinished,
        "model": result.model,
        "outputs": result.out,
    }


def _tell(result: RayResult) -> None:
    counts = result.counts
    if result.interrupted:
        say(f"Stopped: {counts['images']} of {result.images} images are done.")
        say("  The same command with --resume goes on from there.")
        return
    left = f", {result.processed} of them now" if result.processed < counts["images"] else ""
    rate = f", {result.images_per_second:.1f} images/s" if result.images_per_second else ""
    say(
        f"{counts['images']} images: {counts['ok']} with a lesion, {counts['no_lesion']} without, "
        f"{counts['failed']} failed"
    )
    if counts["review"] or counts["reject"]:
        say(f"by their verdict {counts['review']} to review, {counts['reject']} rejected: see the table")
    say(f"{result.seconds:.1f} s{left}{rate}")
    say(f"  results        {result.out}")
    say("  table          results.parquet (a folder that reads as one table)")
    if counts["failed"]:
        say(f"{counts['failed']} failed:")
        for name, reason in result.failures:
            say(f"  {name}: {reason}")
        if counts["failed"] > len(result.failures):
            more = counts["failed"] - len(result.failures)
            say(f"  ... and {more} more, with their reasons in results.parquet")
    if result.unfinished:
        say(f"{result.unfinished} images were given up; the same command with --resume tries them again")
        for problem in result.problems[:5]:
            say(f"  {problem}")
