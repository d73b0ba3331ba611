"""What an evaluation leaves behind: ``metrics.json``, the summary for people, and the log of test runs."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dermseg.errors import UsageError
from dermseg.evaluation.metrics import METRICS
from dermseg.evaluation.table import Evaluation
from dermseg.images.masks import atomic_write

PER_IMAGE, METRICS_FILE, FIGURE = "per_image.csv", "metrics.json", "examples.png"
LOG_COLUMNS = (
    "date",
    "command",
    "model_sha256",
    "index",
    "split",
    "n",
    "dice",
    "jaccard",
    "threshold_jaccard",
    "failed",
)
_LOG_HEADER = ",".join(LOG_COLUMNS) + "\n"


def prepare_folder(folder: Path, *, overwrite: bool) -> None:
    """Make the output folder.

    Raises
    ------
    UsageError
        It holds an evaluation already and may not be overwritten, or it cannot be made.
    """
    if (folder / METRICS_FILE).exists() and not overwrite:
        raise UsageError(
            "the folder holds an evaluation already", file=folder, hint="--overwrite, or another -o"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder cannot be made: {error.strerror}", file=folder) from None


def write_folder(folder: Path, evaluation: Evaluation, summary: Mapping[str, Any]) -> None:
    """Write the table first and the summary last: a folder with a summary is complete."""
    evaluation.write_csv(folder / PER_IMAGE)
    atomic_write(folder / METRICS_FILE, (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())


def format_summary(summary: Mapping[str, Any]) -> str:
    """The summary as lines for people."""
    lines = [f"{summary['n']} images" + _failed_images(summary), ""]
    lines.append(f"{'mean over images':<22}{'mean':>8}   95 % interval")
    for name in METRICS:
        value = summary[name]
        interval = (
            "unknown (one image)" if value["ci95"] is None else "{:.4f} to {:.4f}".format(*value["ci95"])
        )
        lines.append(f"  {name:<20}{value['mean']:>8.4f}   {interval}")
    low, high = summary["failed_below_065_ci95"]
    lines.append(
        f"  {'jaccard below 0.65':<20}{summary['failed_below_065']:>8.1%}   {low:.1%} to {high:.1%} of images"
    )
    pooled = summary["pooled"]
    lines += ["", "pooled over the pixels of all images"]
    lines.append(
        f"  mean IoU {pooled['mean_iou']:.4f}, mean pixel accuracy {pooled['mean_pixel_accuracy']:.4f}"
    )
    lines += [
        f"  {name:<11}IoU {c['iou']:.4f}, Dice {c['dice']:.4f}, precision {c['precision']:.4f}, "
        f"recall {c['recall']:.4f}"
        for name, c in (("lesion", pooled["lesion"]), ("background", pooled["background"]))
    ]
    return "\n".join(lines)


def _failed_images(summary: Mapping[str, Any]) -> str:
    return f", {summary['failed_images']} could not be scored" if summary["failed_images"] else ""


def check_test_log(file: Path) -> None:
    """Refuse a file that is not such a log, before an evaluation is spent on it.

    Raises
    ------
    UsageError
        The file is a table of something else, or cannot be read.
    """
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            start = stream.readline()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"the log cannot be read: {error.strerror}", file=file) from None
    if start not in ("", _LOG_HEADER):
        raise UsageError(
            "is not a log of evaluations", file=file, hint=f"its first line would be {_LOG_HEADER.strip()}"
        )


def append_test_log(
    file: Path,
    summary: Mapping[str, Any],
    *,
    command: Sequence[str],
    model_sha256: str,
    index: Path,
    split: str,
) -> None:
    """Append one line on this evaluation, so that every look at a test split is on record.

    Absolute paths in the command are shortened to their last part: the log is meant to be published.

    Raises
    ------
    UsageError
        The file cannot be written, or is a table of something else.
    """
    shown = [Path(word).name if Path(word).is_absolute() else word for word in command]
    line = (
        datetime.now(UTC).isoformat(timespec="seconds"),
        shlex.join(shown),
        model_sha256,
        f"{index.absolute().parent.name}/{index.name}",
        split,
        summary["n"],
        *(f"{summary[name]['mean']:.4f}" for name in ("dice", "jaccard", "threshold_jaccard")),
        f"{summary['failed_below_065']:.4f}",
    )
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(line)
    check_test_log(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Appended, not rewritten: two evaluations that end at once must not lose each other's line.
        with file.open("ab") as stream:
            stream.write(("" if stream.tell() else _LOG_HEADER).encode() + text.getvalue().encode())
    except OSError as error:
        raise UsageError(f"the log cannot be written: {error.strerror}", file=file) from None
