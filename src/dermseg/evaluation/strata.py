"""Figures for groups of images: is the model as good for small lesions, low contrast, dark skin, old people?

Decisions
- A group of fewer than `MINIMUM` independent images is named with its size and gets no figures: they would
  be read as if they meant something, and a handful of people is a handful of identifiable people.
- Strata are read from the per-image table alone, so they can be made again from ``per_image.csv``.
- Groups have fixed limits, the same for every data set, except contrast: it has no agreed limits and depends
  on the camera, so it is cut into tenths of the images at hand.
- Many groups are looked at and no correction is made for that: one interval in twenty misses its value. A
  stratum that sticks out is a reason to look, not a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dermseg.evaluation.appearance import SKIN_TONES, skin_tone
from dermseg.evaluation.intervals import Estimate
from dermseg.evaluation.table import Evaluation, Fact, Key

MINIMUM = 10
"""Fewest independent images (patients or lesions, where known) for which a group gets figures."""
STRATUM_METRICS = ("dice", "jaccard", "failed", "hd95_diagonal")
"""What is reported per group."""

_SIZES = ((0.02, "below 2 %"), (0.05, "2-5 %"), (0.15, "5-15 %"), (0.30, "15-30 %"), (0.50, "30-50 %"))
_AGES = ((20, "below 20"), (40, "20-39"), (60, "40-59"), (80, "60-79"))
_TEXTS = {
    "diagnosis": "Diagnosis",
    "site": "Site on the body",
    "sex": "Sex",
    "source": "Source of the image",
    "annotation_style": "Annotation style (tool that drew the reference)",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Images that have something in common.

    Attributes
    ----------
    name
        What they have in common.
    keys
        The images.
    independent
        Number of patients or lesions among them (images, where nothing is known).
    """

    name: str
    keys: frozenset[Key]
    independent: int

    @property
    def refused(self) -> bool:
        """Whether the group is too small for figures."""
        return self.independent < MINIMUM


@dataclass(frozen=True, slots=True)
class Stratum:
    """One way of sorting images into groups; ``unknown`` counts those of which it is not known."""

    name: str
    title: str
    groups: tuple[Group, ...]
    unknown: int


def stratify(evaluation: Evaluation) -> list[Stratum]:
    """Every stratum that the table has the facts for.

    With several references of an image the first one decides.
    """
    strata = [
        _sort(evaluation, "size", "Lesion size (share of the image)", "reference_area_fraction", _size),
        _sort(evaluation, "touches_border", "Lesion touches the border", "reference_touches_border", _yes),
        _contrast(evaluation),
        _sort(evaluation, "skin_tone", "Skin tone (estimated angle)", "ita", _tone),
        _sort(evaluation, "age", "Age in years", "age", _age),
    ]
    strata += [_sort(evaluation, name, title, name, _text) for name, title in _TEXTS.items()]
    strata.append(_sort(evaluation, "dataset", "Data set", "dataset", _text))
    # One group that holds every image would only repeat the means.
    return [s for s in strata if s.groups and (len(s.groups) > 1 or s.unknown)]


def stratum_figures(evaluation: Evaluation) -> list[dict[str, object]]:
    """Every stratum with its groups' means and intervals, as they stand in JSON."""
    return group_figures(stratify(evaluation), lambda keys: _figures(evaluation.subset(keys)))


def group_figures(
    strata: Sequence[Stratum], figures: Callable[[frozenset[Key]], dict[str, object]]
) -> list[dict[str, object]]:
    """The strata with the figures that a function gives for a group's images; refused groups have none."""
    return [
        {
            "name": stratum.name,
            "title": stratum.title,
            "minimum": MINIMUM,
            "unknown": stratum.unknown,
            "groups": [
                {
                    "name": group.name,
                    "n": len(group.keys),
                    "independent": group.independent,
                    "refused": group.refused,
                    **({} if group.refused else figures(group.keys)),
                }
                for group in stratum.groups
            ],
        }
        for stratum in strata
    ]


def skin_tone_summary(evaluation: Evaluation) -> dict[str, object] | None:
    """How often the skin tone could not be estimated, and why; None where it was never tried."""
    tried = {score.key: score for score in reversed(evaluation.scores) if "ita_reason" in score.facts}
    if not tried:
        return None
    reasons: dict[str, int] = {}
    for score in tried.values():
        if reason := str(score.facts["ita_reason"] or ""):
            reasons[reason] = reasons.get(reason, 0) + 1
    failed = sum(reasons.values())
    return {"n": len(tried), "failed": failed, "failure_rate": failed / len(tried), "reasons": reasons}


def number(fact: Fact) -> float | None:
    """A fact as a number; in a table that was read back it is text, and empty text is unknown."""
    if fact is None or fact == "" or isinstance(fact, bool):
        return None
    try:
        return float(fact)
    except ValueError:
        return None


def _figures(evaluation: Evaluation) -> dict[str, object]:
    estimates: dict[str, Estimate] = {
        name: evaluation.estimate(name) for name in STRATUM_METRICS if evaluation.values(name).size
    }
    return {name: found.to_dict() for name, found in estimates.items()}


def _sort(
    evaluation: Evaluation,
    name: str,
    title: str,
    column: str,
    label: Callable[[Fact], tuple[float, str] | None],
) -> Stratum:
    """Groups by the label of a column, in the order of the labels' numbers, then names."""
    found: dict[tuple[float, str], set[Key]] = {}
    unknown = 0
    for key, fact in _column(evaluation, column).items():
        where = label(fact)
        if where is None:
            unknown += 1
        else:
            found.setdefault(where, set()).add(key)
    groups = [
        Group(where[1], frozenset(keys), len({evaluation.clusters[key] for key in keys}))
        for where, keys in sorted(found.items())
    ]
    return Stratum(name, title, tuple(groups), unknown)


def _column(evaluation: Evaluation, name: str) -> dict[Key, Fact]:
    """A fact per image, from the first of its references."""
    found: dict[Key, Fact] = {}
    for score in evaluation.scores:
        found.setdefault(score.key, score.dataset if name == "dataset" else score.facts.get(name))
    return found


def _contrast(evaluation: Evaluation) -> Stratum:
    facts = _column(evaluation, "contrast").values()
    values = [value for fact in facts if (value := number(fact)) is not None]
    limits = np.quantile(values, np.arange(1, 10) / 10) if values else np.zeros(9)
    ends = [min(values, default=0.0), *limits, max(values, default=0.0)]

    def tenth(fact: Fact) -> tuple[float, str] | None:
        value = number(fact)
        if value is None:
            return None
        i = int(np.searchsorted(limits, value, side="left"))
        return i, f"{i + 1}: {ends[i]:.1f} to {ends[i + 1]:.1f}"

    title = "Contrast of lesion to skin (tenths of the images, delta E)"
    return _sort(evaluation, "contrast", title, "contrast", tenth)


def _size(fact: Fact) -> tuple[float, str] | None:
    return _binned(fact, _SIZES, "50 % and more")


def _age(fact: Fact) -> tuple[float, str] | None:
    return _binned(fact, _AGES, "80 and more")


def _binned(fact: Fact, limits: Sequence[tuple[float, str]], last: str) -> tuple[float, str] | None:
    value = number(fact)
    if value is None:
        return None
    return next(((below, name) for below, name in limits if value < below), (float("inf"), last))


def _tone(fact: Fact) -> tuple[float, str] | None:
    value = number(fact)
    if value is None:
        return None
    names = [name for name, _ in SKIN_TONES]
    return names.index(skin_tone(value)), skin_tone(value)


def _yes(fact: Fact) -> tuple[float, str] | None:
    if fact in (None, ""):
        return None
    return (1, "yes") if fact in (True, "true") else (0, "no")


def _text(fact: Fact) -> tuple[float, str] | None:
    return None if fact in (None, "") else (0, str(fact))
