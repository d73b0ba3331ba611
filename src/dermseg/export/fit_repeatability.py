"""Fit how far a bundle's measurements of an unchanged lesion differ between photographs.

On real pairs of the splits ``calib`` and ``val``, which the network was not trained on: two photographs of
one lesion, of those that could be compared (see ``inference.following``). One pair of each lesion, so that
pairs are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dermseg.data.index import IndexRow, open_image, read_index
from dermseg.errors import DataError
from dermseg.export.write import add_attachment, open_folder
from dermseg.inference.card import ModelCard
from dermseg.inference.following import Photograph, Visit, compare, look
from dermseg.inference.predictor import Model
from dermseg.measure.align import align
from dermseg.uncertainty.repeatability import ATTACHMENT, FILE, Repeatability, fit_limits
from dermseg.version import __version__

SPLITS = ("calib", "val")
_MOST = 4  # photographs of a lesion that are looked at


@dataclass(frozen=True)
class Pair:
    """Two photographs of one lesion that could be compared: ratios second by first, and the verdicts."""

    lesion: str
    area: float
    diameter: float
    accepted: bool


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
    for index in indexes:
        rows = [row for row in read_index(index) if row.split in SPLITS]
        found = list(find_pairs(model, rows))
        used[index.stem] = len(found)
        report(f"{index.stem}: {len(found)} pairs")
        pairs += found
    if not pairs:
        raise DataError("no lesion has two photographs that can be compared", file=indexes[0])
    accepted = [pair for pair in pairs if pair.accepted]
    fitted = Repeatability(
        fitted={
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "dermseg": __version__,
            "splits": list(SPLITS),
            "pairs": used,
        },
        accepted=fit_limits([p.area for p in accepted], [p.diameter for p in accepted]),
        all=fit_limits([p.area for p in pairs], [p.diameter for p in pairs]),
    )
    return add_attachment(bundle, ATTACHMENT, FILE, fitted.to_json())


def find_pairs(model: Model, rows: Sequence[IndexRow]) -> Iterator[Pair]:
    """The first pair of each lesion that can be compared by the skin around it."""
    lesions: dict[str, list[IndexRow]] = {}
    for row in rows:
        if row.lesion:
            lesions.setdefault(row.lesion, []).append(row)
    for lesion, group in lesions.items():
        if len(group) > 1 and (pair := _pair(model, lesion, group[:_MOST])) is not None:
            yield pair


def _pair(model: Model, lesion: str, rows: Sequence[IndexRow]) -> Pair | None:
    seen: list[Visit] = []
    for row in rows:
        second = look(model, Photograph(open_image(row), lesion))
        if not second.usable:
            continue
        for first in seen:
            assert first.marks is not None and second.marks is not None
            found = compare(first, second, (0, 1), None, align(first.marks, second.marks)).change
            if found.area is not None and found.diameter is not None:
                both = first.verdict == second.verdict == "accept"
                return Pair(lesion, 1 + found.area, 1 + found.diameter, both)
        seen.append(second)
    return None
