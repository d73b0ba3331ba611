"""A second copy of a run folder, kept up to date while the run goes on: ``--mirror DIR``.

For machines that may vanish (rented, Colab): DIR is a mounted drive. The copy is a run folder like the first,
and a run goes on from it with ``--resume DIR/NAME``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from dermseg.training.checkpoint import BEST, CONFIG, LAST, START
from dermseg.training.log import BOARD, CURVES, METRICS

# in this order, so that a copy that was interrupted never has a checkpoint without what belongs to it
_FILES = (CONFIG, "environment.json", METRICS, CURVES, BEST, START, LAST)


class Mirror:
    """Copies what has changed in a run folder to ``target / NAME OF THE FOLDER``.

    A drive that is gone or full does not end the run: it is said once, and tried again next time.
    """

    def __init__(self, folder: Path, target: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.target = target / folder.absolute().name
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
