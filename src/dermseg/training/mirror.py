"""A second copy of a run folder, kept up to date while the run goes on: ``--mirror DIR``.

For machines that may vanish (rented, Colab): DIR is a mounted drive. The copy is a run folder like the first,
and a run goes on from it with ``--resume DIR/NAME``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from dermseg.errors import UsageError
from dermseg.training.checkpoint import BEST, CONFIG, LAST, START
from dermseg.training.config import RunConfig, load_config
from dermseg.training.log import BOARD, CURVES, METRICS
from dermseg.training.resolve import differences_of_runs

# in this order, so that a copy that was interrupted never has a checkpoint without what belongs to it
_FILES = (CONFIG, "environment.json", METRICS, CURVES, BEST, START, LAST)


def mirror_of(folder: Path, target: Path) -> Path:
    """Where the copy of a run folder lies below ``target``."""
    return target / folder.absolute().name


def check_mirror(folder: Path, target: Path, config: RunConfig, *, resume: bool) -> None:
    """Refuse a place where the copies would lie on the run itself, or on those of another run.

    A drive that cannot be read is no reason: see ``Mirror``.

    Raises
    ------
    UsageError
        The copy is the run folder, or another run's: a new run is another one than whatever is there.
    """
    copy = mirror_of(folder, target)
    if copy.resolve() == folder.resolve():
        raise UsageError("--mirror would copy the run onto itself", file=folder, hint="name another folder")
    try:
        if not (copy / CONFIG).exists():
            return
    except OSError:
        return
    if not resume:
        raise UsageError(
            "the mirror holds a run of this name, which would be lost",
            file=copy,
            hint=f"dermseg train --resume {copy} goes on; a new run needs another -o or --mirror",
        )
    if differences_of_runs(load_config(copy / CONFIG), config):
        raise UsageError(
            "the mirror holds another run of this name, which would be lost",
            file=copy,
            hint="another --mirror",
        )


class Mirror:
    """Copies what has changed in a run folder to ``target / NAME OF THE FOLDER``.

    A drive that is gone or full does not end the run: it is said once, and tried again next time.
    """

    def __init__(self, folder: Path, target: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.target = mirror_of(folder, target)
        self.say = say
        self._copied: dict[Path, tuple[int, int]] = {}
        self._complained = False

    def update(self) -> None:
        """Copy the files that are new or changed, each under a temporary name first."""
        try:
            for path in self._files():
                stat = path.stat()
                seen = (stat.st_mtime_ns, stat.st_size)
                if self._copied.get(path) == seen:
                    continue
                copy = self.target / path.relative_to(self.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                temporary = copy.with_name(f".{copy.name}.tmp")
                shutil.copyfile(path, temporary)
                temporary.replace(copy)
                self._copied[path] = seen
            self._complained = False
        except OSError as error:
            if not self._complained:
                self.say(f"the mirror cannot be written, the run goes on: {error}")
            self._complained = True

    def _files(self) -> Iterator[Path]:
        board = sorted((self.folder / BOARD).glob("*"))
        yield from (path for path in (self.folder / name for name in _FILES[:-2]) if path.exists())
        yield from board
        yield from (path for path in (self.folder / name for name in _FILES[-2:]) if path.exists())
