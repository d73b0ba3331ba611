"""What an evaluation leaves behind: ``metrics.json``, the summary for people, and the log of test runs."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dermseg.errors import UsageError
from dermseg.evaluation.failures import failure_rows
from dermseg.evaluation.intervals import RESAMPLES, has_bootstrap
from dermseg.evaluation.metrics import METRICS
from dermseg.evaluation.robustness import Robustness
from dermseg.evaluation.strata import skin_tone_summary, stratum_figures
from dermseg.evaluation.table import MEASURES, Evaluation
from dermseg.files import check_writable, write_json
from dermseg.words import counted

PER_IMAGE, METRICS_FILE, FIGURE, PAGE = "per_image.csv", "metrics.json", "examples.png", "report.html"
ROBUSTNESS, COMPARISON, FAILURES = "robustness.csv", "comparison.json", "failures.jpg"
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


def prepare_folder(
    folder: Path, *, overwrite: bool, holds: Sequence[str] = (METRICS_FILE, PER_IMAGE, PAGE)
) -> None:
    """Make the output folder.

    Raises
    ------
    UsageError
        It holds one of these files already, also of another verb (each writes a report), and may not be
        overwritten, or it cannot be made.
    """
    if not overwrite and (there := [name for name in holds if (folder / name).exists()]):
        raise UsageError(
            f"the folder holds results already ({', '.join(there)})",
            file=folder,
            hint="--overwrite, or another -o",
        )
    check_writable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder cannot be made: {error.strerror}", file=folder) from None


def remove_left_over(folder: Path, names: Sequence[str]) -> None:
    """Take away what an earlier evaluation in the folder wrote and this one does not: it is not about it."""
    if (folder / METRICS_FILE).exists():
        for name in names:
            (folder / name).unlink(missing_ok=True)


def write_folder(folder: Path, evaluation: Evaluation, summary: Mapping[str, Any]) -> None:
    """Write the table first and the summary last: a folder with a summary is complete."""
    evaluation.write_csv(folder / PER_IMAGE)
    write_json(folder / METRICS_FILE, summary)


def summarise(evaluation: Evaluation, robustness: Robustness | None = None) -> dict[str, Any]:
    """Everything that follows from an evaluation's table, as it stands in JSON.

    `Evaluation.summary` with ``strata`` (`stratum_figures`), ``skin_tone`` (how often it could not be
    estimated), ``worst`` (`failure_rows`) and, where it was asked for, ``robustness``.
    """
    return {
        **evaluation.summary(),
        "strata": stratum_figures(evaluation),
        "skin_tone": skin_tone_summary(evaluation),
        "worst": failure_rows(evaluation),
        **({} if robustness is None else {"robustness": robustness.summary()}),
    }


def format_summary(summary: Mapping[str, Any]) -> str:
    """The summary as lines for people."""
    lines = [counted(summary["n"], "image") + _failed_images(summary), ""]
    names = (*METRICS, *(name for name in MEASURES if name in summary))
    intervals = {"ci95_clustered": "95 % interval (t)", "bca95": "95 % interval (BCa)"}
    if all(summary[name]["bca95"] is None for name in names):
        del intervals["bca95"]  # without SciPy, or of one image: the last line says so
    titles = "".join(f"{title:<24}" for title in intervals.values())
    lines.append(f"{'mean over images':<22}{'mean':>8}   {titles.rstrip()}")
    for name in names:
        found = summary[name]
        ends = "".join(f"{_ends(found[key]):<24}" for key in intervals)
        n = found["n"]
        fewer = "" if n == summary["n"] else f"of {counted(n, 'image')}"  # without a scale, say
        lines.append(f"  {name:<20}{found['mean']:>8.4f}   {ends}{fewer}".rstrip())
    share = summary["failed_below_065_ci95"]
    around = "unknown" if share is None else f"{share[0]:.1%} to {share[1]:.1%} of images"
    lines.append(f"  {'jaccard below 0.65':<20}{summary['failed_below_065']:>8.1%}   {around}")
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
    return "\n".join([*lines, "", describe_intervals(summary)])


def describe_intervals(summary: Mapping[str, Any]) -> str:
    """One sentence on what the intervals are over."""
    n, clusters = summary["n"], summary["clusters"]
    if n == 1:
        return "A mean of one image has no interval."
    if clusters == 1:
        return "All images are of one patient or lesion: how others differ from it is not known."
    over = "images" if clusters == n else f"{clusters} independent groups of images (patients, lesions)"
    if has_bootstrap():
        return f"Intervals over {over}; BCa bootstrap with {RESAMPLES} resamples."
    return f'Intervals over {over}; the BCa bootstrap needs SciPy: pip install "dermseg[stats]"'


def format_trust(block: Mapping[str, Any]) -> str:
    """What ``evaluation.trust`` gives of a data set, as lines for people; unknown is said."""
    lines = [_figure(name, found) for name, found in block.items() if _is_figure(found)]
    lines += ["  band_ece", *(_figure(name, found, 4) for name, found in block["band_ece"].items())]
    if margins := block.get("margins"):
        lines.append(f"  margins, level {margins['alpha']:g}")
        lines += [_figure(name, found, 4) for name, found in margins.items() if _is_figure(found)]
        lines += [
            f"    {f'{name}, worst':<30}{worst['value']:.4f}  {worst['stratum']}, "
            f"{counted(worst['n'], 'image')}"
            for name, worst in margins["worst"].items()
            if worst is not None
        ]
    if passes := block.get("pixel_error_auroc"):
        lines += ["  pixel_error_auroc", *(_figure(name, found, 4) for name, found in passes.items())]
    return "\n".join(lines)


def _is_figure(found: Any) -> bool:
    return isinstance(found, dict) and "value" in found


def _figure(name: str, found: Mapping[str, Any] | None, indent: int = 2) -> str:
    value, interval = (None, None) if found is None else (found["value"], found["ci95"])
    shown = "unknown" if value is None else f"{value:.4f}"
    around = "" if interval is None else f"  {_ends(interval)}"
    return f"{'':{indent}}{name:<{26 + indent}}{shown}{around}"


def _ends(interval: Sequence[float] | None) -> str:
    return "unknown" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


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
        with file.open("ab+") as stream:
            begin = "" if stream.tell() else _LOG_HEADER
            if not begin:
                stream.seek(-1, os.SEEK_END)
                begin = "" if stream.read(1) == b"\n" else "\n"  # an editor may have left the last line open
            stream.write(begin.encode() + text.getvalue().encode())
    except OSError as error:
        raise UsageError(f"the log cannot be written: {error.strerror}", file=file) from None
