"""Parts of the training data: nested stratified fractions and folds, the same for every model."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from dermseg.data.index import EXCLUDED, IndexRow, open_mask, read_index, write_index
from dermseg.data.splits import assign_groups, fold_groups, group_of
from dermseg.images.masks import load_mask

INDEXES = "indexes"  # folder of a suite that they are written into
_SEED = 2018
_STRATA = 5


def take_fraction(rows: Sequence[IndexRow], areas: Sequence[float], fraction: float) -> list[IndexRow]:
    """A share of ``rows``, in their order; a smaller share is a part of a larger one.

    Groups (patients, lesions, near-duplicates) stay whole. Strata are data set and quintile of the lesion's
    area, so a tenth of the data has small and large lesions in the same proportions.

    Parameters
    ----------
    rows
        Training images.
    areas
        Share of the image under the mask, one per row.
    fraction
        In (0, 1].
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[group_of(row)].append(i)
    names = sorted(groups)
    first = [groups[name][0] for name in names]
    edges = np.quantile([areas[i] for i in first], np.linspace(0, 1, _STRATA + 1)[1:-1])
    strata: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name, i in zip(names, first, strict=True):
        strata[rows[i].dataset, int(np.searchsorted(edges, areas[i]))].append(name)
    rng = np.random.default_rng(_SEED)
    # every stratum is shuffled and spread evenly over [0, 1): any beginning has all in proportion
    places: dict[str, float] = {}
    for key in sorted(strata):
        members = strata[key]
        offset = rng.random()
        for place, k in enumerate(rng.permutation(len(members))):
            places[members[k]] = (place + offset) / len(members)
    wanted, taken = size_of(fraction, len(rows)), set[int]()
    for name in sorted(places, key=lambda name: (places[name], name)):
        if len(taken) >= wanted:
            break
        taken.update(groups[name])
    return [row for i, row in enumerate(rows) if i in taken]


def size_of(fraction: float, images: int) -> int:
    """How many of so many images a fraction is, before groups are kept whole."""
    return round(fraction * images)


def fraction_index(index: Path, split: str, fraction: float, folder: Path) -> Path:
    """An index whose ``split`` holds a fraction of that of ``index``; written once, then reused."""
    target = folder / f"{_name(index)}-{split}-{100 * fraction:g}pct.csv"
    if not target.exists():
        rows = read_index(index)
        train = [row for row in rows if row.split == split]
        areas = [float(load_mask(open_mask(row)).mean()) for row in train]
        kept = {id(row) for row in take_fraction(train, areas, fraction)}
        write_index([row for row in rows if row.split != split or id(row) in kept], target)
    return target


def fold_index(index: Path, fold: int, folds: int, folder: Path, others: Sequence[Path] = ()) -> Path:
    """The index of one fold of cross-validation over all images that are not excluded.

    Parameters
    ----------
    others
        The other indexes of the run: a patient or lesion is in the same fold in all of them.
    """
    target = folder / f"{_name(index, *others)}-fold{fold + 1}of{folds}.csv"
    if not target.exists():
        own, *rest = ([r for r in read_index(i) if r.split != EXCLUDED] for i in (index, *others))
        rows = assign_groups([*own, *chain(*rest)])
        write_index(fold_groups(rows, folds, seed=_SEED)[fold][: len(own)], target)
    return target


def _name(index: Path, *others: Path) -> str:
    """Name of an index and of what is in it now: two data sets may both call theirs ``index.csv``."""
    digest = hashlib.sha256()
    for path in (index, *others):
        digest.update(str(path.absolute()).encode() + b"\0" + path.read_bytes())
    return f"{index.stem}-{digest.hexdigest()[:8]}"
