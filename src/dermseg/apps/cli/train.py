"""``dermseg train``: from a configuration file to a run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch  # noqa: F401  (a missing [train] extra must show before anything else happens)
import typer

from dermseg.apps.cli.common import JsonOption, new_app, print_json, refuse_unused, say
from dermseg.errors import DermsegError, UsageError

if TYPE_CHECKING:
    from dermseg.training.config import RunConfig

app = new_app()


@app.command()
def train(
    *,
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="YAML configuration of the run; default: $DERMSEG_CONFIG."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Run folder; default runs/<name>.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Go on from a bundle ('default'), run folder or .safetensors file, with its network.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, repeatable.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    mirror: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Copy checkpoints and logs to DIR/<run> as they come."),
    ] = None,
    find_batch_size: Annotated[
        bool, typer.Option("--find-batch-size", help="Only find the largest batch that fits in memory.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a network. Ctrl-C or a kill loses nothing: --resume RUN goes on where it stopped.

    --from MODEL without CONFIG fine-tunes on the train and val splits of index.csv (or $DERMSEG_INDEX).

    \b
    Several GPUs or machines:
      torchrun --nproc-per-node 2 --no-python dermseg train CONFIG
    """
    import cv2

    from dermseg.training.checkpoint import CONFIG
    from dermseg.training.distributed import torchrun_world
    from dermseg.training.folder import run_config
    from dermseg.training.run import train as run_training
    from dermseg.training.start import load_run

    if config is None and from_ is None and resume is None and (named := os.environ.get("DERMSEG_CONFIG")):
        config = Path(named)
    if resume:
        if config or output or from_ or set_ or find_batch_size:
            raise UsageError(
                "--resume takes its settings from the run",
                hint="leave CONFIG, -o, --from, --set, --find-batch-size out; other settings are a new run: "
                f"dermseg train {resume / CONFIG} --from {resume} -o ANOTHER --set KEY=VALUE",
            )
        folder, settings = resume, run_config(resume)
    else:
        if config is None and from_ is None:
            raise UsageError(
                "a configuration file is needed",
                hint="dermseg train configs/own-data.yaml (or DERMSEG_CONFIG), or --from default: fine-tune",
            )
        settings = load_run(config, from_, set_ or ())
        folder = output or Path("runs") / settings.name
    if find_batch_size:
        refuse_unused({"-o": output, "--mirror": mirror}, "can have no effect with --find-batch-size")
        _find_batch_size(settings, as_json)
        return
    cv2.setNumThreads(1)  # batches are made side by side already; more threads would take torch's
    try:
        progress = run_training(settings, folder, resume=resume is not None, mirror=mirror)
    except KeyboardInterrupt:
        if torchrun_world().main and (folder / CONFIG).is_file():
            say(f"Stopped. 'dermseg train --resume {folder}' goes on.")
        raise
    if not torchrun_world().main:
        return
    say(f"best val Dice {progress.best_dice:.4f} in epoch {progress.best_epoch + 1}; run folder: {folder}")
    _report(folder, mirror)
    if as_json:
        result = {"run": str(folder), "best_dice": progress.best_dice, "best_epoch": progress.best_epoch}
        if settings.training.metric != "dice":
            result["best_score"] = progress.best_score
        result["stopped_early"] = progress.epoch < settings.training.epochs
        print_json({**result, "epochs": progress.epoch, "steps": progress.step, "seconds": progress.seconds})


def _report(folder: Path, mirror: Path | None) -> None:
    """What the network does on each validation image; a run whose images are gone is trained all the same."""
    import shutil

    from dermseg.experiments.validation import VALIDATION, evaluate_validation
    from dermseg.report.folder import write_evaluation
    from dermseg.training.mirror import mirror_of

    target = folder / VALIDATION
    say("the network is trained; now a report of its validation images")
    try:
        done = evaluate_validation(folder)
        target.mkdir(exist_ok=True)
        write_evaluation(
            target, done.title, done.evaluation, done.summary, predict=done.predict, rows=done.rows
        )
    except (DermsegError, OSError) as error:
        say(f"no report of the validation images: {error}")
        return
    say(f"each validation image, and a page to read: {target}")
    if mirror is None:
        return
    try:
        for path in sorted(path for path in target.rglob("*") if path.is_file()):
            copy = mirror_of(folder, mirror) / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)  # not its times and modes, which some drives cannot hold
    except OSError as error:
        say(f"it is not in the mirror, which cannot be written: {error}")


def _find_batch_size(settings: RunConfig, as_json: bool) -> None:
    from dermseg.training.find_batch import Trial, as_dict, find_batch_size, largest

    def show(trial: Trial) -> None:
        memory = "" if trial.gigabytes is None else f", {trial.gigabytes:.2f} GB"
        speed = "" if trial.images_per_second is None else f", {trial.images_per_second:.1f} images/s"
        say(f"batch {trial.batch_size:4d}: {'fits' if trial.fits else 'does not fit'}{memory}{speed}")

    trials = find_batch_size(settings, show)
    say(f"largest batch that fits: --set training.batch_size={largest(trials).batch_size}")
    if as_json:
        print_json(as_dict(trials))
