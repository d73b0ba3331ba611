"""How a batch shows that it is getting on, and how it ended: a bar on a terminal, lines elsewhere, JSON lines
on request.

All of it goes to stderr; stdout belongs to ``--json``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dermseg.apps.cli.common import MANY, draws_bars, log_line, say
from dermseg.inference.journal import Entry
from dermseg.words import counted

if TYPE_CHECKING:
    from dermseg.inference.batch import BatchResult
    from dermseg.scale.ray_engine import RayResult

_LINE_EVERY_S = 5.0
_ENDING = "writing table and report"


class PlainProgress:
    """A line every few seconds; the base of the other ways. It is the listener of ``run_batch``."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.before = 0  # done by an earlier session
        self.done = 0
        self.failed = 0
        self._start = time.perf_counter()
        self._last_line = self._start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, entry: Entry | None, counts: Counter[str]) -> None:
        """Take note of a finished image, or of where an earlier session stopped."""
        self.done, self.failed = counts.total(), counts["failed"]
        if entry is None:
            self.before = self.done
            self._start = time.perf_counter()
        self.show(entry)

    @property
    def rate(self) -> float | None:
        """Images per second of this session; None before the first."""
        seconds = time.perf_counter() - self._start
        return (self.done - self.before) / seconds if self.done > self.before and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the rate so far; None before the first image."""
        return (self.total - self.done) / self.rate if self.rate else None

    def show(self, entry: Entry | None) -> None:
        """Say where things stand, if it is time to."""
        if entry is None and self.before:
            say(f"resuming: {self.before} of {counted(self.total, 'image')} done")
        if self.done == self.total >= MANY:
            say(_ENDING)
        self.tick()

    def tick(self) -> None:
        """A line, if the last one is some seconds ago."""
        now = time.perf_counter()
        if now - self._last_line >= _LINE_EVERY_S and self.done < self.total:
            self._last_line = now
            say(self.state())

    def state(self) -> str:
        """How many are done; rate, time left and failures as far as they are known."""
        parts = [f"{self.done} of {counted(self.total, 'image')}"]
        if self.rate is not None and self.seconds_left is not None:
            parts += [f"{self.rate:.1f} images/s", f"{format_seconds(self.seconds_left)} left"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        return ", ".join(parts)


class BarProgress(PlainProgress):
    """A bar with the rate and the time left, for a terminal; it goes away when the batch ends."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__(total)
        self._bar = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),  # one text: where it is narrow its end is cut off, no number
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self.state(), total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, entry: Entry | None) -> None:
        """Move the bar."""
        what = _ENDING if self.done == self.total else self.state()
        self._bar.update(self._task, completed=self.done, description=what)


class JsonProgress(PlainProgress):
    """One JSON object per line and event: ``start``, ``image`` (its row of the table), ``end``."""

    def show(self, entry: Entry | None) -> None:
        """Log the event."""
        if entry is None:
            self.log("start", images=self.total, done_before=self.before)
        else:
            row = {key: value for key, value in entry.row.as_dict().items() if value is not None}
            self.log("image", done=self.done, **row, stages=entry.stages)

    def log(self, event: str, **values: Any) -> None:
        """Write one line."""
        log_line(event, **values)


def make_progress(total: int, *, log_json: bool) -> PlainProgress:
    """The way that fits: JSON where asked for, a bar on a terminal, lines elsewhere."""
    if log_json:
        return JsonProgress(total)
    return BarProgress(total) if draws_bars() else PlainProgress(total)


def format_seconds(seconds: float) -> str:
    """``8 s``, ``3 min 20 s``, ``2 h 05 min``: as exact as a person needs it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def say_stopped(result: BatchResult | RayResult, images: int) -> None:
    """That a batch of so many images was interrupted."""
    say(f"Stopped: {result.counts['images']} of {counted(images, 'image')} done.")
    say("  The same command with --resume goes on from there.")


def say_counts(result: BatchResult | RayResult, where: str) -> None:
    """What became of the images, and how long it took; ``where`` is what shows their verdicts."""
    counts = result.counts
    images = counted(counts["images"], "image")
    left = f", {result.processed} of them now" if result.processed < counts["images"] else ""
    rate = f", {result.images_per_second:.1f} images/s" if result.images_per_second else ""
    say(f"{images}: {counts['ok']} with a lesion, {counts['no_lesion']} without, {counts['failed']} failed")
    if counts["review"] or counts["reject"]:
        say(f"by their verdict {counts['review']} to review, {counts['reject']} rejected: see the {where}")
    say(f"{result.seconds:.1f} s{left}{rate}")


def say_failures(result: BatchResult | RayResult, shown: Sequence[tuple[str, str]], where: str) -> None:
    """The first images that failed, ``(name, reason)`` each, and which table has all of them."""
    failed = result.counts["failed"]
    say(f"{failed} failed:")
    for name, reason in shown:
        say(f"  {name}: {reason}")
    if failed > len(shown):
        say(f"  ... and {failed - len(shown)} more, with their reasons in {where}")
