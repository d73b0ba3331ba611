"""Where the numbers and pictures of a run go: ``metrics.jsonl``, TensorBoard, ``curves.png``."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.files import atomic_write

_DRAW_EVERY_S = 30.0
METRICS, CURVES, BOARD = "metrics.jsonl", "curves.png", "tensorboard"


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a ``metrics.jsonl``; what comes after a torn line is left out."""
    events = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            events.append(json.loads(line))  # noqa: PERF401 (the lines before a torn one are kept)
    except (FileNotFoundError, ValueError):
        pass
    return events


def epochs_trained(folder: Path) -> int | None:
    """Epochs of a run up to its last validation: fewer than asked for where it stopped early.

    None where there is no record of them.
    """
    done = [event["epoch"] + 1 for event in read_events(folder / METRICS) if event.get("event") == "val"]
    return max(done, default=None)


class RunLog:
    """Writes the record of a run; one that is off writes nothing.

    On resume the events after the checkpoint are dropped: they are about to be written again.

    Parameters
    ----------
    folder
        The run folder.
    resume_at
        Optimizer step of the checkpoint, None for a new run.
    on
        Whether this process writes at all.
    """

    def __init__(self, folder: Path, resume_at: int | None, on: bool = True) -> None:
        self.folder, self.on = folder, on
        self._drawn = time.monotonic()
        self._board: Any = None
        if not on:
            return
        events = read_events(folder / METRICS) if resume_at is not None else []
        kept = [event for event in events if event["step"] <= (resume_at or 0)]
        atomic_write(folder / METRICS, "".join(f"{json.dumps(event)}\n" for event in kept).encode())
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(
            str(folder / BOARD), purge_step=None if resume_at is None else resume_at + 1
        )

    def event(self, kind: str, step: int, **values: Any) -> None:
        """Append one event; its numbers that TensorBoard should show go there too."""
        if not self.on:
            return
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, "step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def pictures(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Show ``uint8 (H, W, 3)`` RGB in TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def draw(self, *, last: bool = False) -> None:
        """Draw ``curves.png`` from the events so far, and flush what TensorBoard holds.

        Where validations follow each other within seconds, only now and then, and when it is the last.
        """
        if not self.on or not (last or time.monotonic() - self._drawn > _DRAW_EVERY_S):
            return
        self._drawn = time.monotonic()
        if self._board is not None:
            self._board.flush()
        drawn = draw_curves(read_events(self.folder / METRICS))
        if drawn:
            atomic_write(self.folder / CURVES, drawn)

    def close(self) -> None:
        """Flush and close the event file."""
        if self._board is not None:
            self._board.close()


def draw_curves(events: list[dict[str, Any]]) -> bytes | None:
    """Loss, validation and learning rate over steps as a PNG; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    steps = [e for e in events if e["event"] == "train"]
    checks = [e for e in events if e["event"] == "val"]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, score, rate = figure.subplots(1, 3)
    loss.plot([e["step"] for e in steps], [e["loss"] for e in steps], color="#9db8d2", lw=0.8, label="step")
    loss.plot(
        [e["step"] for e in checks],
        [e["train_loss"] for e in checks],
        "o-",
        ms=3,
        color="#1f5a92",
        label="epoch",
    )
    sources = [key for key in (checks[0] if checks else {}) if ":" in key]
    for name in sources if len(sources) > 1 else []:
        known = [e for e in checks if name in e]
        score.plot([e["step"] for e in known], [e[name] for e in known], lw=0.9, label=name)
    score.plot(
        [e["step"] for e in checks],
        [e["dice"] for e in checks],
        "o-",
        ms=3,
        color="#1f5a92",
        label="val Dice",
    )
    if checks:
        best = max(checks, key=lambda e: e.get("score", e["dice"]))
        score.axvline(best["step"], color="#b34700", lw=0.8, ls="--")
        score.set_title(f"validation, best {best['dice']:.4f} in epoch {best['epoch'] + 1}", fontsize=10)
    marker = "o" if len(steps) < 3 else None  # a line of one point is not seen
    rate.plot([e["step"] for e in steps], [e["lr"] for e in steps], color="#1f5a92", marker=marker)
    loss.set_title("loss", fontsize=10)
    rate.set_title("learning rate", fontsize=10)
    for axes in (loss, score, rate):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    return buffer.getvalue()
