"""Results on disk: trainings, suites and evaluations below one folder, and what to show of each."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dermseg.evaluation.failures import describe_failure, worst_images
from dermseg.evaluation.metrics import dice, jaccard
from dermseg.evaluation.output import METRICS_FILE, PER_IMAGE
from dermseg.evaluation.table import read_per_image
from dermseg.report.names import NAMES
from dermseg.report.strata import best_interval

CURVES = "metrics.jsonl"
MAX_DEPTH, MAX_FOUND = 5, 500
Kind = Literal["training", "suite", "evaluation"]
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,14})")  # no codes such as 007
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?")
PICTURES = ("curves.png", "worst.jpg", "failures.jpg", "examples.png")


@dataclass(frozen=True, slots=True)
class Found:
    """A folder of results; ``name`` is its path below the root."""

    kind: Kind
    name: str
    path: Path

    @property
    def label(self) -> str:
        """What people choose from a list."""
        return f"{self.name} ({self.kind})"


def find_results(root: Path) -> list[Found]:
    """Folders of results below `root` (and itself), sorted by name; links are not followed."""
    found: list[Found] = []
    waiting = [(root, 0)]
    while waiting and len(found) < MAX_FOUND:
        folder, depth = waiting.pop()
        name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
        kind = _kind_of(folder)
        if kind is not None:
            found.append(Found(kind, name, folder))
        if depth < MAX_DEPTH:
            with suppress(OSError):  # not ours to read, or gone meanwhile
                waiting += [
                    (path, depth + 1)
                    for path in sorted(folder.iterdir())
                    if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
                ]
    return sorted(found, key=lambda item: item.name)


def _kind_of(folder: Path) -> Kind | None:
    if (folder / METRICS_FILE).is_file() and (folder / PER_IMAGE).is_file():
        return "evaluation"
    if (folder / CURVES).is_file():
        return "training"
    if (folder / "runs").is_dir() and (folder / "results.csv").is_file():
        return "suite"
    return None


def read_curves(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Training loss and validation figures by step: kind of event -> its rows; a torn line ends it."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for line in (path / CURVES).read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            break
        numbers = {key: value for key, value in event.items() if isinstance(value, int | float)}
        if "epoch" in numbers:
            numbers["epoch"] += 1  # from 1, as the terminal and curves.png count
        curves.setdefault(str(event.get("event")), []).append(numbers)
    return curves


def read_table(path: Path) -> list[dict[str, Any]]:
    """A CSV file as rows, see `parse_table`."""
    return parse_table(path.read_text(encoding="utf-8"))


def parse_table(text: str) -> list[dict[str, Any]]:
    """The rows of a CSV table. Columns of numbers hold numbers, so that the page sorts them as such."""
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text, newline="")))
    for name in filter(None, rows[0] if rows else ()):
        values = [row[name] for row in rows]
        kind = int if all(map(_WHOLE.fullmatch, filter(None, values))) else float
        if not any(values) or not all(map(_NUMBER.fullmatch, filter(None, values))):
            continue
        for row in rows:
            row[name] = kind(row[name]) if row[name] else None
    return rows


def read_summary(path: Path) -> list[dict[str, Any]]:
    """Figures of an evaluation: metric, mean and the 95 % interval of its page (None where unknown)."""
    summary = json.loads((path / METRICS_FILE).read_text(encoding="utf-8"))
    rows = []
    for name, value in summary.items():
        if isinstance(value, dict) and "mean" in value and "bca95" in value:
            low, high = best_interval(value) or (None, None)
            title = NAMES.get(name, name.replace("_", " "))
            rows.append({"metric": title, "mean": value["mean"], "low": low, "high": high})
    return rows


def worst_rows(path: Path) -> list[dict[str, Any]]:
    """The images of an evaluation that went wrong most, and how."""
    return [
        {
            "image": score.image_id,
            "data set": score.dataset,
            "Dice": dice(score.counts),
            "Jaccard": jaccard(score.counts),
            "what": describe_failure(score.counts),
        }
        for score in worst_images(read_per_image(path / PER_IMAGE))
    ]


def not_scored(path: Path) -> list[dict[str, str]]:
    """The images of an evaluation that are in no figure, and why."""
    failures = read_per_image(path / PER_IMAGE).failures
    return [{"image": f.image_id, "data set": f.dataset, "why": f.reason} for f in failures]


def pictures(path: Path) -> list[Path]:
    """The pictures that lie in the folder."""
    return [path / name for name in PICTURES if (path / name).is_file()]
