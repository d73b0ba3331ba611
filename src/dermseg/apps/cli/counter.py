"""A count of images on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from dermseg.apps.cli.common import draws_bars, say
from dermseg.words import counted

_LINE_EVERY_S = 10.0
T = TypeVar("T")


class ImageCounter:
    """Shows how many images are done; use as a context manager.

    Parameters
    ----------
    what
        What is being done, in one word.
    total
        Number of images.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self._bar: Any = None
        self._task: Any = None
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Self:
        if draws_bars():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, speed="")
        return self

    def advance(self, number: int = 1) -> None:
        """Say that so many more images are done."""
        self.done += number
        now = time.monotonic()
        speed = f"{self.done / max(1e-9, now - self._start):.1f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, advance=number, speed=speed)
        elif now - self._last >= _LINE_EVERY_S and self.done < self.total:
            self._last = now
            say(f"{self.what}: {self.done} of {counted(self.total, 'image')}, {speed}")

    def reach(self, done: int, total: int) -> None:
        """Say that so many of so many are done, for work that finds its total on the way."""
        if total != self.total and self._bar is not None:
            self._bar.update(self._task, total=total)
        self.total = total
        self.advance(done - self.done)

    def count(self, images: Iterable[T]) -> Iterator[T]:
        """Each of these in turn; one more is done when the next is asked for."""
        for image in images:
            yield image
            self.advance()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
