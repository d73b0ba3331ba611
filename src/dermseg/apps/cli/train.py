"""``dermseg train``: from a configuration file to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch  # noqa: F401  (a missing [train] extra must show before anything else happens)
import typer

from dermseg.apps.cli.common import new_app, print_json, say
from dermseg.errors import UsageError

app = new_app()


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="YAML configuration of the run.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Run folder; default runs/<name>.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, repeatable.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a network. Ctrl-C or a kill loses nothing: --resume RUN goes on where it stopped."""
    import cv2

    from dermseg.training.config import load_config
    from dermseg.training.loop import train as run_training

    if resume:
        if config or output or set_:
            raise UsageError(
                "--resume takes its settings from the run", hint="leave CONFIG, -o and --set out"
            )
        folder, settings = resume, load_config(resume / "config.yaml")
    else:
        if config is None:
            raise UsageError("a configuration file is needed", hint="dermseg train configs/default.yaml")
        settings = load_config(config, set_ or ())
        folder = output or Path("runs") / settings.name
    cv2.setNumThreads(1)  # batches are made side by side already; more threads would take torch's
    progress = run_training(settings, folder, resume=resume is not None)
    say(f"best val Dice {progress.best_dice:.4f} in epoch {progress.best_epoch + 1}; run folder: {folder}")
    if as_json:
        result = {"run": str(folder), "best_dice": progress.best_dice, "best_epoch": progress.best_epoch}
        print_json({**result, "epochs": progress.epoch, "steps": progress.step, "seconds": progress.seconds})
