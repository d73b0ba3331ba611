"""Where the numbers of a run go: ``metrics.jsonl``, TensorBoard, and a live line for people."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from dermseg.images.masks import atomic_write


class MetricsFile:
    """JSON lines, one per event, each with its optimizer step.

    On resume the lines after the checkpoint are dropped: they are about to be written again.
    """

    def __init__(self, path: Path, resume_at: int | None = None) -> None:
        self.path = path
        kept = []
        if resume_at is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= resume_at:
                        kept.append(line)
                except ValueError:  # a line torn by the interruption
                    break
        atomic_write(path, "".join(f"{line}\n" for line in kept).encode())

    def write(self, **values: Any) -> None:
        """Append one event."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


class Board:
    """TensorBoard scalars; silent when tensorboard is not installed."""

    def __init__(self, folder: Path, resume_at: int | None) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder), purge_step=resume_at)

    def scalars(self, step: int, **values: float) -> None:
        """Write named values at a step."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name.replace("__", "/"), value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()


class LiveLine:
    """One line that is rewritten on a terminal and printed now and then elsewhere."""

    def __init__(self, total_steps: int, done_steps: int, quiet: bool = False) -> None:
        self.total, self.first = total_steps, done_steps
        self.start = self.last = time.monotonic()
        self.images = 0
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()

    def update(self, step: int, images: int, epoch: str, loss: float, val: str) -> None:
        """Show progress after ``images`` more images; at most ten times a second."""
        self.images += images
        now = time.monotonic()
        if self.quiet or now - self.last < (0.1 if self.terminal else 30):
            return
        self.last = now
        per_step = (now - self.start) / max(1, step - self.first)
        left = int(per_step * (self.total - step))
        text = (
            f"epoch {epoch}  step {step}/{self.total}  loss {loss:.4f}  {val}  "
            f"{self.images / (now - self.start):.1f} images/s  {left // 60}:{left % 60:02d} left"
        )
        sys.stderr.write(f"\r\x1b[2K{text}" if self.terminal else text + "\n")
        sys.stderr.flush()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if not self.quiet:
            sys.stderr.write(("\r\x1b[2K" if self.terminal else "") + text + "\n")
            sys.stderr.flush()
