"""The command line's side of ``dermseg segment --engine ray``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from dermseg.apps.cli.common import note, say
from dermseg.apps.cli.progress import JsonProgress, PlainProgress, say_counts, say_failures, say_stopped
from dermseg.errors import MissingExtraError, UsageError
from dermseg.words import counted

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
    from dermseg.uncertainty.margins import no_margins

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
    if options.uncertainty and options.margin is None and (why := no_margins(network.trust)):
        note(why, as_log=log_json)
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
    if result.interrupted:
        say_stopped(result, result.images)
        return
    say_counts(result, "table")
    say(f"  results        {result.out}")
    say("  table          results.parquet (a folder that reads as one table)")
    if result.counts["failed"]:
        say_failures(result, result.failures, "results.parquet")
    if result.unfinished:
        say(f"{counted(result.unfinished, 'image')} given up; the same command with --resume tries again")
        for problem in result.problems[:5]:
            say(f"  {problem}")
