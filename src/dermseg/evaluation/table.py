"""The per-image table, and the summary that is made from it and from nothing else.

An image that could not be scored (unreadable, or of another size than its reference) stays in the table as a
failed row with its reason. It is in no mean, so whoever quotes a mean quotes ``n`` and ``failed_images`` too.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DataError, ScoringError
from dermseg.evaluation.boundary import BOUNDARY_METRICS
from dermseg.evaluation.calibration import (
    CALIBRATION_METRICS,
    Calibration,
    Reliability,
    pool,
    pooled_figures,
)
from dermseg.evaluation.counts import Counts
from dermseg.evaluation.intervals import Estimate, estimate, share_interval
from dermseg.evaluation.metrics import JACCARD_THRESHOLD, METRICS, jaccard, pooled_metrics
from dermseg.evaluation.statistics import Interval, mean_interval
from dermseg.files import atomic_write

Fact = str | int | float | bool | None
Key = tuple[str, str]
Cluster = tuple[str, ...]
_COUNTS = ("tp", "fp", "fn", "tn")
MEASURES = (*BOUNDARY_METRICS, *CALIBRATION_METRICS)
"""Metrics that counts do not hold; None where unknown (no scale, no probability map, no boundary)."""
_FIXED = ("image_id", "dataset", "group", "status", "message", *_COUNTS, *METRICS)


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One prediction against one reference.

    Attributes
    ----------
    image_id, dataset
        What the image is known by.
    counts
        Agreeing and disagreeing pixels.
    group
        The patient, lesion or group of near-duplicates that the image belongs to; empty where unknown.
    facts
        Whatever else is known (confidence, size, area fractions ...); each becomes a column.
    measures
        Metrics of `MEASURES`; one that is missing or None is unknown and in no mean.
    calibration
        The reliability of the probability map behind the prediction; not written to the table.
    """

    image_id: str
    counts: Counts
    dataset: str = ""
    group: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    measures: Mapping[str, float | None] = field(default_factory=dict)
    calibration: Calibration | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> Key:
        """What the image is known by: names are unique within a data set only."""
        return self.dataset, self.image_id

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric of `METRICS`."""
        return {name: metric(self.counts) for name, metric in METRICS.items()}


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be scored, and why."""

    image_id: str
    reason: str
    dataset: str = ""
    group: str = ""

    def to_dict(self) -> dict[str, str]:
        """As it stands in JSON and reports."""
        return {"image_id": self.image_id, "dataset": self.dataset, "reason": self.reason}


@dataclass(frozen=True)
class Evaluation:
    """All images of one evaluation.

    Where an image was scored against several references, it has several rows in a sequence; means over
    images take the mean over its references first, so that n counts images.
    """

    scores: Sequence[ImageScore]
    failures: Sequence[Failure] = ()

    def __repr__(self) -> str:
        if not self.scores:
            return f"Evaluation(0 images, {len(self.failures)} failed)"
        dice = self.values("dice").mean()
        return f"Evaluation({self.n} images, {len(self.failures)} failed, mean Dice {dice:.4f})"

    @property
    def n(self) -> int:
        """Number of images that were scored."""
        return len({score.key for score in self.scores})

    @property
    def pooled_counts(self) -> Counts:
        """The confusion matrix over the pixels of all rows."""
        return reduce(add, (score.counts for score in self.scores), Counts(0, 0, 0, 0))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that at least one image has, in the order of tables."""
        known = {name for s in self.scores for name, value in s.measures.items() if value is not None}
        return (*METRICS, *(name for name in MEASURES if name in known))

    def by_image(self, metric: str) -> dict[Key, float]:
        """Value of a metric per image that has one, in table order.

        ``failed`` is 1 for a Jaccard index below 0.65. An image with several references has their mean.
        """
        values: dict[Key, list[float]] = {}
        for score in self.scores:
            value = score_value(score, metric)
            if value is not None:
                values.setdefault(score.key, []).append(value)
        return {key: math.fsum(each) / len(each) for key, each in values.items()}

    def values(self, metric: str) -> NDArray[np.float64]:
        """The values of `by_image`, float64 ``(n,)``."""
        return np.fromiter(self.by_image(metric).values(), np.float64)

    @cached_property
    def clusters(self) -> dict[Key, Cluster]:
        """Which patient, lesion or group each image belongs to; an image without one is its own."""
        # A group may span data sets: two of them can show the same lesion.
        return {s.key: ("group", s.group) if s.group else ("image", *s.key) for s in self.scores}

    def mean(self, metric: str) -> Interval:
        """Mean over images with its 95 % t-interval."""
        return mean_interval(self.values(metric))

    def estimate(self, metric: str) -> Estimate:
        """Mean over images with every interval: t over images, t over clusters, BCa over clusters."""
        values = self.by_image(metric)
        return estimate(list(values.values()), [self.clusters[key] for key in values])

    def subset(self, keys: Container[Key]) -> Evaluation:
        """The images with these keys, without failures."""
        return Evaluation([score for score in self.scores if score.key in keys])

    def check_scored(self) -> None:
        """Refuse an evaluation without a score, which has no means.

        Raises
        ------
        ScoringError
            No image could be scored.
        """
        if not self.scores:
            first = "".join(f", first: {f.image_id}: {f.reason}" for f in self.failures[:1])
            raise ScoringError(f"no image could be scored ({len(self.failures)} failed{first})")

    def reliability(self) -> dict[str, object] | None:
        """Calibration over the pixels of all images, each image weighing the same; None without maps.

        ``all`` looks at every pixel, ``band`` (None if no image has one) near the references' boundaries.
        """
        known: dict[Key, list[Reliability]] = {}
        near: dict[Key, list[Reliability]] = {}
        for s in self.scores:
            if s.calibration is not None:
                known.setdefault(s.key, []).append(s.calibration.everywhere)
                if s.calibration.band is not None:
                    near.setdefault(s.key, []).append(s.calibration.band)
        return {"all": self._pooled(known), "band": self._pooled(near) if near else None} if known else None

    def _pooled(self, parts: Mapping[Key, Sequence[Reliability]]) -> dict[str, object]:
        """`pooled_figures` of images, each the mean over its references."""
        return pooled_figures([pool(each) for each in parts.values()], [self.clusters[key] for key in parts])

    def summary(self) -> dict[str, Any]:
        """The figures that ``evaluate --json`` and ``score --json`` print.

        Metrics at the top level are means over images with 95 % intervals (`Estimate.to_dict`); ``pooled``
        holds what follows from the pixels of all images together, ``calibration`` what `reliability` gives.
        ``failed_below_065`` is the share of images whose Jaccard index is below 0.65, with `share_interval`
        and its BCa interval over clusters.

        Raises
        ------
        ScoringError
            No image could be scored.
        """
        self.check_scored()
        failed = self.estimate("failed")
        share = share_interval(self.values("failed"), list(self.clusters.values()))
        return {
            "n": self.n,
            "clusters": len(set(self.clusters.values())),
            **{name: self.estimate(name).to_dict() for name in self.metrics},
            "failed_below_065": failed.mean,
            "failed_below_065_ci95": None if share is None else list(share),
            "failed_below_065_bca95": None if failed.bca is None else list(failed.bca),
            "pooled": pooled_metrics(self.pooled_counts),
            "calibration": self.reliability(),
            "failed_images": len(self.failures),
            "failures": [failure.to_dict() for failure in self.failures],
        }

    def write_csv(self, path: str | Path) -> None:
        """Write ``per_image.csv``: one row per scored image (and reference), then the failed ones."""
        measured = [name for name in MEASURES if any(name in score.measures for score in self.scores)]
        extra = [*measured, *dict.fromkeys(name for score in self.scores for name in score.facts)]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, [*_FIXED, *extra], restval="", lineterminator="\n")
        writer.writeheader()
        for s in self.scores:
            row = {
                "image_id": s.image_id,
                "dataset": s.dataset,
                "group": s.group,
                "status": "ok",
                "message": "",
            }
            counts = {name: getattr(s.counts, name) for name in _COUNTS}
            facts = {name: _cell(value) for name, value in {**s.measures, **s.facts}.items()}
            writer.writerow({**row, **counts, **s.metrics, **facts})
        for f in self.failures:
            row = {"image_id": f.image_id, "dataset": f.dataset, "group": f.group, "status": "failed"}
            writer.writerow({**row, "message": f.reason})
        atomic_write(Path(path), text.getvalue().encode("utf-8", "backslashreplace"))


def read_per_image(path: str | Path) -> Evaluation:
    """Read a ``per_image.csv`` back; metrics are computed anew from the counts, other columns stay text.

    Raises
    ------
    DataError
        The file is missing or is not such a table.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")  # with a mark where Excel has saved it
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", file=file) from None
    scores, failures = [], []
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if missing := [name for name in _FIXED if name not in (reader.fieldnames or ())]:
        raise DataError(f"not a per-image table: no column {', '.join(missing)}", file=file)
    for row in reader:
        who = (row["dataset"], row["group"])
        if row["status"] == "failed":
            failures.append(Failure(row["image_id"], row["message"], *who))
            continue
        try:
            counts = Counts(*(int(row[name]) for name in _COUNTS))
        except ValueError:
            raise DataError(f"line {reader.line_num}: the counts are not whole numbers", file=file) from None
        facts = {
            name: value.lower() if value in ("TRUE", "FALSE") else value  # Excel's true and false
            for name, value in row.items()
            if name not in (*_FIXED, *MEASURES)
        }
        try:
            measures = {name: float(row[name]) if row[name] else None for name in MEASURES if name in row}
        except (TypeError, ValueError):
            raise DataError(f"line {reader.line_num}: a metric is not a number", file=file) from None
        scores.append(ImageScore(row["image_id"], counts, *who, facts=facts, measures=measures))
    return Evaluation(scores, failures)


def score_value(score: ImageScore, metric: str) -> float | None:
    """Value of a metric, or of ``failed``, for one prediction; None where it is unknown.

    Raises
    ------
    DataError
        There is no such metric.
    """
    if metric in METRICS:
        return METRICS[metric](score.counts)
    if metric == "failed":
        return float(jaccard(score.counts) < JACCARD_THRESHOLD)
    if metric in MEASURES:
        return score.measures.get(metric)
    raise DataError(
        f"there is no metric '{metric}'", hint=f"one of {', '.join((*METRICS, *MEASURES))}, failed"
    )


def _cell(value: Fact) -> Fact:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value
