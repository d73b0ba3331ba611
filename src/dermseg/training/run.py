"""A run: from a configuration to a run folder, alone or together with other processes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from dermseg.errors import DermsegError, TrainingError, UsageError
from dermseg.training.check import check_run
from dermseg.training.checkpoint import LAST
from dermseg.training.config import RunConfig
from dermseg.training.device import lacks_memory
from dermseg.training.distributed import join
from dermseg.training.folder import begin, check_folder, claim
from dermseg.training.loop import Trainer
from dermseg.training.mirror import check_mirror
from dermseg.training.progress import Progress
from dermseg.training.resolve import resolve, without_start


def train(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    mirror: Path | None = None,
) -> Progress:
    """Train ``config`` into the run folder ``folder``; below ``torchrun``, together with the other ranks.

    Parameters
    ----------
    mirror
        A second place: ``mirror / NAME OF THE FOLDER`` gets a copy of every checkpoint and log.

    Raises
    ------
    UsageError
        The configuration asks for what cannot be (see ``check_run``), the folder holds another run and
        ``resume`` is off, or no run, or one without its checkpoint, and ``resume`` is on; or another process
        is training in it. The mirror holds another run of its name.
    TrainingError
        The loss is no longer finite, the checkpoint cannot be read, there is not enough memory, or another
        rank is gone.
    """
    with join(config.training.device) as world, ExitStack() as held:
        problem: DermsegError | None = None
        try:
            check_folder(folder, resume)
            config = resolve(config)
            if mirror is not None and world.main:
                check_mirror(folder, mirror, config, resume=resume)
            check_run(without_start(config) if resume and (folder / LAST).exists() else config, world)
        except DermsegError as error:
            problem = error
        world.agree(problem)
        if world.main and not resume:
            begin(config, folder)
        try:
            if world.main:
                held.enter_context(claim(folder))
        except UsageError as error:
            problem = error
        world.agree(problem)
        # killed before the first checkpoint: there is nothing to go on from, so start anew
        there = resume and (folder / LAST).exists()
        if len(set(world.gather(there))) > 1:
            raise TrainingError(
                "not every rank sees the checkpoint", file=folder, hint="put the run folder on a shared disk"
            )
        try:
            return Trainer(config, folder, resume=there, quiet=quiet, world=world, mirror=mirror).run()
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            raise TrainingError(
                f"there is not enough memory to train (training.batch_size={config.training.batch_size}): "
                + str(error).splitlines()[0],
                file=folder,
                hint="end other programs, then --resume; or begin anew, with another -o and a smaller "
                "training.batch_size: dermseg train CONFIG --find-batch-size says which fits",
            ) from error
