"""Fit how far a bundle's measurements of an unchanged lesion differ between photographs.

On real pairs of the splits ``calib`` and ``val``, which the network was not trained on: two photographs of
one lesion (see ``inference.following``). One pair of each lesion for its size, of those that could be laid on
each other, and one for its contrast, so that pairs are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from dermseg.data.index import IndexRow, open_image, read_index, short_names
from dermseg.data.sources.base import GLOBAL_NAME
from dermseg.errors import DataError
from dermseg.export.write import add_attachment, open_folder
from dermseg.inference.card import ModelCard
from dermseg.inference.following import Photograph, Visit, compare, look
from dermseg.inference.predictor import Model
from dermseg.measure.align import align
from dermseg.uncertainty.repeatability import ATTACHMENT, FILE, Limits, Repeatability, fit_limits
from dermseg.version import __version__

SPLITS = ("calib", "val")
_MOST = 4  # photographs of a lesion that are looked at


@dataclass(frozen=True)
class Pair:
    """Two photographs of one lesion: what differs, second by first, and whether both were accepted.

    Attributes
    ----------
    area, diameter
        Ratios; None for a pair that was taken for its contrast.
    contrast
        Difference; None for a pair that was taken for its sizes.
    """

    lesion: str
    accepted: bool
    area: float | None = None
    diameter: float | None = None
    contrast: float | None = None


def fit_bundle_repeatability(
    path: Path, indexes: Sequence[Path], *, report: Callable[[str], None] = lambda _: None
) -> ModelCard:
    """Fit and write it into the bundle; what was fitted before is replaced.

    Raises
    ------
    UsageError
        The bundle is a zip.
    DataError
        No lesion has two photographs that can be compared.
    """
    bundle = open_folder(path)
    model = Model(bundle)
    pairs: list[Pair] = []
    used: dict[str, int] = {}
    for name, index in zip(short_names(indexes), indexes, strict=True):
        rows = [row for row in read_index(index) if row.split in SPLITS]
        found = list(find_pairs(model, rows))
        used[name] = sum(pair.area is not None for pair in found)
        report(f"{name}: {used[name]} pairs for sizes, {len(found) - used[name]} for contrast")
        pairs += found
    if not pairs:
        raise DataError("no lesion has two photographs that can be compared", file=indexes[0])
    fitted = Repeatability(
        fitted={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "dermseg": __version__,
            "splits": list(SPLITS),
            "pairs": used,
        },
        accepted=_limits([pair for pair in pairs if pair.accepted]),
        others=_limits([pair for pair in pairs if not pair.accepted]),
        all=_limits(pairs),
    )
    return add_attachment(bundle, ATTACHMENT, FILE, fitted.to_json())


def _limits(pairs: Sequence[Pair]) -> Limits:
    return fit_limits(
        [pair.area for pair in pairs if pair.area is not None],
        [pair.diameter for pair in pairs if pair.diameter is not None],
        [pair.contrast for pair in pairs if pair.contrast is not None],
    )


def find_pairs(model: Model, rows: Sequence[IndexRow]) -> Iterator[Pair]:
    """Of each lesion the first pair that has a scale by the skin around it, and the first with a contrast."""
    lesions: dict[tuple[str, str, str], list[IndexRow]] = {}
    for row in rows:
        if row.lesion:  # names such as 1 and 2 repeat between people and data sets
            dataset = "" if GLOBAL_NAME.fullmatch(row.lesion) else row.dataset
            lesions.setdefault((dataset, row.subject, row.lesion), []).append(row)
    for (_, _, lesion), group in lesions.items():
        if len(group) < 2:
            continue
        looks = [look(model, Photograph(open_image(row), lesion)) for row in group[:_MOST]]
        usable = [visit for visit in looks if visit.usable]
        couples = [(usable[i], usable[j]) for j in range(len(usable)) for i in range(j)]
        for kind in (_sizes, _contrasts):
            yield from islice((pair for pair in (kind(lesion, *couple) for couple in couples) if pair), 1)


def _sizes(lesion: str, first: Visit, second: Visit) -> Pair | None:
    assert first.marks is not None and second.marks is not None
    found = compare(first, second, (0, 1), None, align(first.marks, second.marks)).change
    if found.area is None or found.diameter is None:
        return None
    return Pair(lesion, _accepted(first, second), area=1 + found.area, diameter=1 + found.diameter)


def _contrasts(lesion: str, first: Visit, second: Visit) -> Pair | None:
    found = compare(first, second, (0, 1), None, None).contrast
    return None if found is None else Pair(lesion, _accepted(first, second), contrast=found.change)


def _accepted(first: Visit, second: Visit) -> bool:
    return first.verdict == second.verdict == "accept"
