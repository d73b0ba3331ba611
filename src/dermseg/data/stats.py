"""What is in an index: counts, sizes, how much of each image is lesion, licences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dermseg.data.index import IndexRow, open_mask
from dermseg.data.splits import group_of, regroup
from dermseg.data.threads import map_threads
from dermseg.errors import DermsegError
from dermseg.images.masks import load_mask

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def describe(
    rows: Sequence[IndexRow],
    *,
    areas: bool = True,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Figures of an index, ready for JSON.

    Parameters
    ----------
    areas
        Also read the first mask of every row for the lesion's share of the image (slower).

    Returns
    -------
    dict
        ``images``, ``masks``, ``groups`` (an image without one is its own), ``subjects``, ``lesions``;
        ``datasets``: per data set and split images and groups; ``width``, ``height`` and ``area_fraction``
        as quantiles (None where nothing is known); ``licences``; ``unreadable``: masks that could not be
        read.
    """
    rows = regroup(rows)
    result: dict[str, Any] = {
        "images": len(rows),
        "masks": sum(len(row.masks) for row in rows),
        "groups": len({group_of(row) for row in rows}),
        "subjects": len({(row.dataset, row.subject) for row in rows if row.subject}),
        "lesions": len({(row.dataset, row.lesion) for row in rows if row.lesion}),
        "datasets": _count(rows),
        "width": quantiles([row.width for row in rows if row.width]),
        "height": quantiles([row.height for row in rows if row.height]),
        "licences": dict(Counter(row.licence or "unknown" for row in rows).most_common()),
        "area_fraction": None,
        "unreadable": 0,
    }
    if areas:
        fractions, bad = _areas([row for row in rows if row.masks], workers, progress)
        result["unreadable"] = bad
        values = [value for group in fractions.values() for value in group]
        by_dataset = {name: quantiles(group) for name, group in sorted(fractions.items())}
        result["area_fraction"] = {"all": quantiles(values), **by_dataset} if values else None
    return result


def _count(rows: Iterable[IndexRow]) -> dict[str, dict[str, dict[str, int]]]:
    images: dict[str, Counter[str]] = defaultdict(Counter)
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        split = row.split or "unassigned"
        images[row.dataset][split] += 1
        groups[row.dataset, split].add(group_of(row))
    return {
        dataset: {
            split: {"images": number, "groups": len(groups[dataset, split])}
            for split, number in sorted(counter.items())
        }
        for dataset, counter in sorted(images.items())
    }


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Quantiles by name (``"q05"`` ...) with the mean; None for no values."""
    if not values:
        return None
    found = np.quantile(np.asarray(values, dtype=np.float64), QUANTILES)
    named = {f"q{round(q * 100):02d}": round(float(v), 6) for q, v in zip(QUANTILES, found, strict=True)}
    return {"mean": round(float(np.mean(values)), 6), **named}


def _areas(
    rows: Sequence[IndexRow], workers: int, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, list[float]], int]:
    def area(row: IndexRow) -> float | None:
        try:
            return float(load_mask(open_mask(row)).mean())
        except DermsegError:
            return None  # counted as unreadable; 'data check' says why

    found: dict[str, list[float]] = defaultdict(list)
    bad = 0
    for row, value in zip(rows, map_threads(area, rows, workers=workers, progress=progress), strict=True):
        if value is None:
            bad += 1
        else:
            found[row.dataset].append(value)
    return found, bad
