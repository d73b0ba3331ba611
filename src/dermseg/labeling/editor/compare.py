"""Two readers of one image: where they differ, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DataError
from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.metrics import dice

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Disagreement:
    """One class as two readers drew it: Dice, and the pixels that only one of them has."""

    label: str
    dice: float
    only_first: int
    only_second: int


def compare_layers(first: Mapping[str, Mask], second: Mapping[str, Mask]) -> list[Disagreement]:
    """Each class that either reader has, the worst agreement first. A class one lacks is an empty mask.

    Raises
    ------
    DataError
        The masks have different sizes.
    """
    sizes = {mask.shape for layers in (first, second) for mask in layers.values()}
    if len(sizes) > 1:
        raise DataError("the two readers' masks have different sizes")
    found = []
    for label in dict.fromkeys((*first, *second)):
        some = first[label] if label in first else second[label]
        empty = np.zeros(some.shape, np.bool_)
        counts = count_pixels(first.get(label, empty), second.get(label, empty))
        found.append(Disagreement(label, float(dice(counts)), int(counts.fp), int(counts.fn)))
    return sorted(found, key=lambda item: item.dice)
