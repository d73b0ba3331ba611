"""Evaluations of the same images, image by image: what is the difference, and could it be chance?

Decisions
- The difference is A minus B over the same images and the same references; another set of images or another
  reference is refused, since it would be compared with the difference of the data. What none of them could
  score is in no figure and is listed.
- Masks that were scored by file name have no data set and no groups; they take those of the same images in
  the other evaluation, so that another program's masks can be compared with a model on an index.
- Groups are those of the evaluation that knows most of them: one may be older than the patients of its index,
  and the interval of A minus B must not be another one than that of B minus A.
- Intervals know clusters (patients, lesions). Wilcoxon's test does not; it is given because many ask for it.
- Where more than two are compared, each with each, the p-values of one metric are corrected after Holm.
  Intervals are not, and nothing is corrected for looking at many metrics and many groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DataError, UsageError
from dermseg.evaluation.calibration import CALIBRATION_METRICS
from dermseg.evaluation.intervals import estimate, has_bootstrap, holm, wilcoxon_p
from dermseg.evaluation.strata import STRATUM_METRICS, Stratum, group_figures, stratify
from dermseg.evaluation.table import Evaluation, Failure, ImageScore, Key
from dermseg.words import counted

_Row = TypeVar("_Row", ImageScore, Failure)

LOWER_IS_BETTER = frozenset(
    [
        "hd95_px",
        "hd95_mm",
        "hd95_diagonal",
        "assd_px",
        "assd_mm",
        "assd_diagonal",
        *CALIBRATION_METRICS,
        "failed",
    ]
)
"""Metrics of which less is better; of all others more is."""


def compare(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Each with each: paired differences A minus B of every metric that both have, overall and per stratum.

    Parameters
    ----------
    evaluations
        At least two, by the names they are called by.

    Returns
    -------
    dict
        ``n``, ``clusters``, ``failed_images`` and ``failures`` (of all of them, each image once), ``models``
        (name, each metric's mean with intervals) and ``pairs``: names ``a`` and ``b``, ``metrics`` by name as
        `_difference` gives them, ``strata`` as an evaluation has them, with differences for figures. Images
        are sorted into groups by the first table.

    Raises
    ------
    DataError
        They did not score the same images, or not with the same references.
    ScoringError
        No image could be scored.
    UsageError
        There are fewer than two.
    """
    if len(evaluations) < 2:
        raise UsageError("a comparison needs at least two evaluations")
    evaluations = align(evaluations)
    first = next(iter(evaluations.values()))
    for other in evaluations.values():
        check_same(first, other)
    first.check_scored()
    failures = {(f.dataset, f.image_id): f for e in reversed(evaluations.values()) for f in e.failures}
    strata = stratify(first)
    pairs = [_pair(a, b, evaluations, strata) for a, b in combinations(evaluations, 2)]
    return {
        "n": first.n,
        "clusters": len(set(first.clusters.values())),
        "failed_images": len(failures),
        "failures": [failure.to_dict() for failure in failures.values()],
        "models": [
            {"name": name, **{metric: e.estimate(metric).to_dict() for metric in (*e.metrics, "failed")}}
            for name, e in evaluations.items()
        ],
        "pairs": _corrected(pairs),
    }


def align(evaluations: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """The evaluations, all with the groups of the one that knows most; those without data sets (of `score`)
    with the data sets of the same images."""
    found = _with_datasets(evaluations)
    most = min(found.values(), key=lambda e: len(set(e.clusters.values())) / max(1, len(e.clusters)))
    groups = {score.key: score.group for score in most.scores}

    def grouped(e: Evaluation) -> Evaluation:
        scores = [replace(s, group=groups.get(s.key, s.group)) for s in e.scores]
        return e if e is most else Evaluation(scores, e.failures)

    return {name: grouped(e) for name, e in found.items()}


def _with_datasets(evaluations: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    named = next((e for e in evaluations.values() if any(s.dataset for s in e.scores)), None)
    if named is None:
        return dict(evaluations)
    known = {f.image_id: f.dataset for f in named.failures} | {s.image_id: s.dataset for s in named.scores}
    if len(known) < named.n + len(named.failures):
        return dict(evaluations)  # one name in two data sets: which one is meant is not known

    def taken_from(each: _Row) -> _Row:
        return replace(each, dataset=known.get(each.image_id, each.dataset))

    return {
        name: e
        if any(s.dataset or s.group for s in e.scores)
        else Evaluation([taken_from(s) for s in e.scores], [taken_from(f) for f in e.failures])
        for name, e in evaluations.items()
    }


def check_same(a: Evaluation, b: Evaluation) -> None:
    """Refuse evaluations that cannot be paired.

    Raises
    ------
    DataError
        They hold other images, or compared with other references.
    """
    mine, theirs = _references(a), _references(b)
    if mine.keys() != theirs.keys():
        names = sorted(image_id for _, image_id in mine.keys() ^ theirs.keys())
        raise DataError(
            f"{counted(len(names), 'image is', 'images are')} in one evaluation only: {', '.join(names[:5])}",
            hint="evaluate both models on the same split, with the same references",
        )
    other = sorted(key[1] for key in mine if mine[key] != theirs[key])
    if other:
        raise DataError(
            f"{counted(len(other), 'image was', 'images were')} compared with other references: "
            f"{', '.join(other[:5])}",
            hint="evaluate both models with the same index and the same --reference",
        )


def paired_values(a: Evaluation, b: Evaluation, metric: str) -> tuple[list[Key], NDArray[np.float64]]:
    """The images of which both know a metric, and A minus B for each, float64 ``(n,)``."""
    mine, theirs = a.by_image(metric), b.by_image(metric)
    keys = [key for key in mine if key in theirs]
    return keys, np.array([mine[key] - theirs[key] for key in keys], np.float64)


def _references(evaluation: Evaluation) -> Mapping[Key, Sequence[tuple[int, int]]]:
    """Area of each reference and of the image, per image: two evaluations that agree saw the same masks."""
    found: dict[Key, list[tuple[int, int]]] = {}
    for score in evaluation.scores:
        found.setdefault(score.key, []).append((score.counts.reference, score.counts.total))
    return found


def _pair(a: str, b: str, evaluations: Mapping[str, Evaluation], strata: Sequence[Stratum]) -> dict[str, Any]:
    left, right = evaluations[a], evaluations[b]

    def figures(keys: frozenset[Key]) -> dict[str, object]:
        return _differences(left.subset(keys), right.subset(keys), STRATUM_METRICS)

    return {
        "a": a,
        "b": b,
        "metrics": _differences(left, right, (*left.metrics, "failed")),
        "strata": group_figures(strata, figures),
    }


def _differences(a: Evaluation, b: Evaluation, metrics: Sequence[str]) -> dict[str, object]:
    return {name: _difference(a, b, name) for name in metrics if len(paired_values(a, b, name)[0])}


def _difference(a: Evaluation, b: Evaluation, metric: str) -> dict[str, object]:
    """Both means, A minus B with intervals, how often A is better, and Wilcoxon's p (None without SciPy)."""
    keys, differences = paired_values(a, b, metric)
    mine, theirs = a.by_image(metric), b.by_image(metric)
    better = -differences if metric in LOWER_IS_BETTER else differences
    return {
        "a": float(np.mean([mine[key] for key in keys])),
        "b": float(np.mean([theirs[key] for key in keys])),
        "difference": estimate(differences, [a.clusters[key] for key in keys]).to_dict(),
        "a_better": int(np.count_nonzero(better > 0)),
        "equal": int(np.count_nonzero(better == 0)),
        "b_better": int(np.count_nonzero(better < 0)),
        "wilcoxon_p": wilcoxon_p(differences) if has_bootstrap() else None,
    }


def _corrected(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs with ``wilcoxon_p_holm`` beside each overall p; None where p is."""
    for name in dict.fromkeys(name for pair in pairs for name in pair["metrics"]):
        figures = [pair["metrics"][name] for pair in pairs if name in pair["metrics"]]
        tested = [each for each in figures if each["wilcoxon_p"] is not None]
        for each in figures:
            each["wilcoxon_p_holm"] = None
        for each, p in zip(tested, holm([each["wilcoxon_p"] for each in tested]), strict=True):
            each["wilcoxon_p_holm"] = p
    return pairs
