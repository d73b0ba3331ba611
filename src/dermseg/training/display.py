"""What a person sees of a run while it goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from dermseg.training.progress import Progress

_LINE_EVERY_S, _BAR_EVERY_S = 30.0, 0.1


class Display:
    """Progress on stderr; a context manager.

    Parameters
    ----------
    quiet
        Show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._total = self._first = self._images = 0
        self._start = self._last = time.monotonic()

    def start(self, total_steps: int, done_steps: int) -> None:
        """Begin to count the steps of a run; images/s and time left are of this session."""
        self._total, self._first, self._images = total_steps, done_steps, 0
        self._start = self._last = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task("", total=total_steps, completed=done_steps, details="")

    def update(self, progress: Progress, images: int, epochs: int) -> None:
        """Show where the run stands after ``images`` more images."""
        self._images += images
        now = time.monotonic()
        if self.quiet or now - self._last < (_LINE_EVERY_S if self._bar is None else _BAR_EVERY_S):
            return
        self._last = now
        best = f"val Dice {progress.best_dice:.4f} (best)" if progress.best_epoch >= 0 else "val Dice -"
        loss = f"{progress.mean_loss:.4f}" if progress.loss_steps else "-"  # on a GPU it is read now and then
        details = f"loss {loss}  {best}  {self._images / (now - self._start):.1f} images/s"
        epoch = f"epoch {progress.epoch + 1}/{epochs}"
        left = (now - self._start) / max(1, progress.step - self._first) * (self._total - progress.step)
        minutes, seconds = divmod(round(left), 60)
        details = f"{details}  {minutes}:{seconds:02d} left"
        if self._bar is None:
            self.line(f"{epoch}  step {progress.step}/{self._total}  {details}")
        else:
            self._bar.update(self._task, completed=progress.step, description=epoch, details=details)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[details]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
