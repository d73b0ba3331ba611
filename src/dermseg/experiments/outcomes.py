"""The outcomes of a suite, collected from its run folders alone, and tests of one against another."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from dermseg.errors import DataError
from dermseg.evaluation.intervals import cluster_sums, clustered_interval, holm, wilcoxon_p
from dermseg.evaluation.metrics import jaccard
from dermseg.evaluation.output import METRICS_FILE, PER_IMAGE
from dermseg.evaluation.table import Evaluation, read_per_image
from dermseg.experiments.settled import DONE
from dermseg.experiments.suite import FOLD

METRICS = ("dice", "jaccard", "accuracy", "sensitivity", "precision")
Variations = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """All seeds of one cell on one data set."""

    variations: Variations
    test: str
    runs: tuple[Path, ...]
    evaluations: tuple[Evaluation, ...]
    parameters: int
    minutes: float
    protocol: str
    indexes: tuple[Path, ...] = ()  # that were evaluated on; evaluations of older versions do not say it
    without_mask: int = 0  # images that were left out for that
    seeds: tuple[int, ...] = ()
    folds: int | None = None  # of the cross-validation that it is a part of; older versions do not say it

    @property
    def label(self) -> str:
        """The variations in words."""
        return ", ".join(variation for _, variation in self.variations)

    def by_image(self, metric: str = "dice") -> dict[Any, float]:
        """Per image, mean over seeds."""
        seeds = [e.by_image(metric) for e in self.evaluations]
        return {key: float(np.mean([s[key] for s in seeds])) for key in seeds[0]}

    def row(self) -> dict[str, Any]:
        """Means over images and seeds, spread over images and over seeds."""
        means = [float(e.mean("dice").mean) for e in self.evaluations]
        images = list(self.by_image().values())
        return {
            **dict(self.variations),
            "test": self.test,
            "n": self.evaluations[0].n,
            "not_scored": len(self.evaluations[0].failures) or None,
            "without_mask": self.without_mask or None,
            "seeds": len(self.evaluations),
            **{m: round(float(np.mean([e.mean(m).mean for e in self.evaluations])), 4) for m in METRICS},
            "pooled_mean_iou": round(float(np.mean([pooled_iou(e) for e in self.evaluations])), 4),
            "dice_sd_images": round(float(np.std(images, ddof=1)), 4) if len(images) > 1 else None,
            "dice_sd_seeds": round(float(np.std(means, ddof=1)), 4) if len(means) > 1 else None,
            "parameters": self.parameters,
            "train_minutes": round(self.minutes, 1),
        }


def pooled_iou(evaluation: Evaluation) -> float:
    """Mean IoU of lesion and background over the pixels of all images: not a mean over images."""
    counts = evaluation.pooled_counts
    return (jaccard(counts) + jaccard(counts.inverted())) / 2


def collect(output: Path) -> list[Outcome]:
    """Every evaluated cell below a suite's folder, by data set and variations; 25 % comes before 100 %.

    Raises
    ------
    DataError
        The seeds of a cell were not evaluated on the same images.
    """
    found: dict[tuple[Variations, str], list[tuple[Path, dict[str, Any]]]] = defaultdict(list)
    for done in sorted((output / "runs").glob(f"*/{DONE}")):
        record = json.loads(done.read_text(encoding="utf-8"))
        for metrics in sorted(done.parent.glob(f"evaluation/*/{METRICS_FILE}")):
            key = (tuple(record["variations"].items()), metrics.parent.name)
            found[key].append((metrics.parent, record))
    outcomes = []
    for (variations, test), members in found.items():
        summary = json.loads((members[0][0] / METRICS_FILE).read_text(encoding="utf-8"))
        record, named = members[0][1], summary["protocol"].get("index", [])
        outcomes.append(
            Outcome(
                variations,
                test,
                tuple(folder for folder, _ in members),
                tuple(read_per_image(folder / PER_IMAGE) for folder, _ in members),
                int(summary["model"]["parameters"]),
                float(np.mean([record["train_seconds"] for _, record in members])) / 60,
                str(summary["protocol"]["text"]),
                tuple(map(Path, [named] if isinstance(named, str) else named)),
                summary["protocol"].get("images_without_mask", 0),
                tuple(record["seed"] for _, record in members),
                record.get("folds"),
            )
        )
    for outcome in outcomes:
        if len({frozenset(e.by_image("dice")) for e in outcome.evaluations}) > 1:
            raise DataError(
                f"the seeds of '{outcome.label}' were evaluated on different images",
                file=outcome.runs[0],
                hint="delete the evaluations that are older than the index, and run the suite again",
            )
    return sorted(outcomes, key=lambda o: (o.test, [by_value(value) for _, value in o.variations]))


def merge_folds(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[str]]:
    """The folds of a cross-validation as one outcome over all images that were left out; others as they are.

    Folds that were evaluated on the same images, as on a data set of its own, stay apart. So do those of
    which one, or a seed of one, is missing: they would be compared with others on images that are easier or
    harder by chance. The second list says which.
    """
    cells: dict[tuple[str, Variations], list[Outcome]] = defaultdict(list)
    for o in outcomes:
        without = tuple((axis, "all" if axis == FOLD else variation) for axis, variation in o.variations)
        cells[o.test, without].append(o)
    merged: list[Outcome] = []
    remarks: list[str] = []
    for (test, variations), folds in cells.items():
        keys = [key for fold in folds for key in fold.by_image()]
        if FOLD not in dict(variations) or len(set(keys)) < len(keys):
            merged += folds
            continue
        if missing := _missing(folds):
            where = ", ".join([variation for axis, variation in variations if axis != FOLD] or [test])
            remarks.append(f"{where}: {missing}, so there is no row 'all', and nothing is compared with it")
        if missing or len(folds) == 1:
            merged += folds
            continue
        whole = tuple(
            Evaluation([s for e in seed for s in e.scores], [f for e in seed for f in e.failures])
            for seed in zip(*(fold.evaluations for fold in folds), strict=True)
        )
        merged.append(
            replace(
                folds[0],
                variations=variations,
                runs=tuple(run for fold in folds for run in fold.runs),
                evaluations=whole,
                minutes=float(np.mean([fold.minutes for fold in folds])),
                without_mask=sum(fold.without_mask for fold in folds),
            )
        )
    return merged, remarks


def _missing(folds: Sequence[Outcome]) -> str:
    """What is not there of a cross-validation, in words; empty if nothing is."""
    wanted = folds[0].folds
    if wanted is not None and len(folds) < wanted:
        return f"{len(folds)} of {wanted} folds"
    if len({(len(fold.evaluations), fold.seeds) for fold in folds}) > 1:
        return "folds of different seeds"
    return ""


def not_scored(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The images that could not be scored, once per data set, with the reason that the first run gave."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for outcome in outcomes:
        for failure in (f for evaluation in outcome.evaluations for f in evaluation.failures):
            key = (outcome.test, failure.dataset, failure.image_id)
            found.setdefault(key, {"test": outcome.test, **failure.to_dict()})
    return list(found.values())


def count_without_mask(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many images of each data set have no mask, where there are some."""
    found: dict[str, int] = defaultdict(int)
    for outcome in merge_folds(outcomes)[0]:
        found[outcome.test] = max(found[outcome.test], outcome.without_mask)
    return {test: count for test, count in found.items() if count}


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def by_value(text: str) -> tuple[int, float, str]:
    """Sort key of a variation: numbers by value, before words."""
    try:
        return (0, float(text.replace("%", "").strip()), text)
    except ValueError:
        return (1, 0.0, text)


def paired_tests(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Variations of the first axis against each other, all else equal, on the same images.

    The t-interval of the mean difference is over patients or lesions (images, where nothing is known). p is
    Wilcoxon's signed-rank test over images, corrected after Holm (1979) for all pairs of the table. ``seeds``
    says which ones each has where they are not the same.
    """
    places: dict[tuple[str, Variations], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        places[outcome.test, outcome.variations[1:]].append(outcome)
    rows = [
        {"test": test, "where": ", ".join(variation for _, variation in rest), **paired}
        for (test, rest), members in places.items()
        for a, b in combinations(members, 2)
        if (paired := _paired(a, b)) is not None
    ]
    tested = [row for row in rows if row["p"] is not None]  # what does not differ at all is no test
    corrected = holm([row["p"] for row in tested])
    for row in rows:
        row["p_holm"] = None
    for row, p in zip(tested, corrected, strict=True):
        row["p_holm"] = p
    return rows


def _paired(a: Outcome, b: Outcome) -> dict[str, Any] | None:
    """The difference on the images that both have; None where that is one or none."""
    ours, theirs = a.by_image(), b.by_image()
    keys = [key for key in ours if key in theirs]
    if len(keys) < 2:
        return None
    gaps = np.array([ours[k] - theirs[k] for k in keys])
    clusters = a.evaluations[0].clusters
    interval = clustered_interval(*cluster_sums(gaps, [clusters[k] for k in keys]))
    low, high = (None, None) if interval is None else (round(end, 4) for end in interval)
    return {
        "a": a.variations[0][1],
        "b": b.variations[0][1],
        "n": len(keys),
        "difference": round(float(gaps.mean()), 4),
        "low": low,
        "high": high,
        "seeds": None if a.seeds == b.seeds else f"{_listed(a.seeds)} against {_listed(b.seeds)}",
        "p": wilcoxon_p(gaps),
    }
