"""The run folder: begun, claimed by one process, and refused where it holds something else."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import yaml

from dermseg.errors import UsageError
from dermseg.files import atomic_write, check_writable, write_json
from dermseg.locks import lock_file
from dermseg.training.checkpoint import BEST, CONFIG, LAST
from dermseg.training.config import RunConfig, load_config
from dermseg.training.environment import describe_environment


def run_config(folder: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises
    ------
    UsageError
        It is none.
    ConfigError
        See ``load_config``.
    """
    if not (folder / CONFIG).is_file():
        hint = "the folder that 'dermseg train' wrote, runs/NAME or that of its -o"
        if folder.is_file() and (folder.parent / CONFIG).is_file():
            hint = f"its folder: {folder.parent}"
        raise UsageError(f"is no run folder: there is no {CONFIG} in it", file=folder, hint=hint)
    return load_config(folder / CONFIG)


def begin(config: RunConfig, folder: Path) -> None:
    """Make the run folder."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    atomic_write(folder / CONFIG, text.encode())
    write_json(folder / "environment.json", describe_environment())


def claim(folder: Path) -> BinaryIO:
    """Keep other trainings out of a run folder while the file is open: two would mix their checkpoints."""
    file = (folder / CONFIG).open("rb")
    try:
        lock_file(file)
    except (BlockingIOError, PermissionError):
        file.close()
        raise UsageError("another process is training in this folder", file=folder) from None
    return file


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder that another run is in, or where there is nothing to go on from.

    Raises
    ------
    UsageError
        It holds a run and ``resume`` is off, or no run, or one without its checkpoint, and ``resume`` is on.
    """
    check_writable(folder)
    exists = (folder / CONFIG).exists()
    if resume and not exists:
        raise UsageError("there is no run here to resume", file=folder)
    if resume and (folder / BEST).exists() and not (folder / LAST).exists():
        raise UsageError(
            f"{LAST} is gone, and the run cannot go on without it",
            file=folder,
            hint="copy it back (from --mirror), or begin a new run with what it learnt: "
            f"dermseg train --from {folder} -o ANOTHER",
        )
    if not resume and exists:
        raise UsageError("the folder holds a run already", file=folder, hint="--resume, or another -o")


def check_best(folder: Path, best_epoch: int) -> None:
    """Refuse to go on where the best weights so far are lost: what comes later need not be as good.

    Parameters
    ----------
    best_epoch
        As the checkpoint has it; -1 before the first validation.

    Raises
    ------
    UsageError
        They are.
    """
    if best_epoch >= 0 and not (folder / BEST).exists():
        raise UsageError(
            f"{BEST} is gone, the weights of epoch {best_epoch + 1}, the best so far",
            file=folder,
            hint=f"copy it back (from --mirror), or train anew: dermseg train {folder / CONFIG} -o ANOTHER",
        )
