"""``repeatability.json``: how far measurements of a lesion that is the same differ between photographs.

Fitted on real pairs: two photographs of one lesion with another distance, turn, light or camera; sizes with
the scale by the skin around it (``measure.align``), the contrast to the skin as it is. The limit is the
quantile that conformal prediction takes: of pairs like these, the next one stays within it with the stated
probability (Papadopoulos et al. 2002, doi:10.1007/3-540-36755-1_29).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dermseg.inference.bundle import Bundle
from dermseg.schema import Stored, read_attached

ATTACHMENT, FILE = "repeatability", "repeatability.json"
LEVEL = 0.9
_HINT = "python benchmarks/following.py --fit BUNDLE fits it"


class Limits(Stored):
    """Within which ``LEVEL`` of the pairs of an unchanged lesion stay.

    Parameters
    ----------
    pairs, contrast_pairs
        Pairs that sizes and contrast were fitted on.
    area, diameter
        Largest absolute logarithm of the ratio of areas and of largest diameters; None where the pairs are
        too few for a promise.
    contrast
        Largest absolute difference of the contrasts to the skin, delta E*ab; None likewise.
    """

    pairs: int = Field(ge=0)
    area: float | None = Field(default=None, gt=0)
    diameter: float | None = Field(default=None, gt=0)
    contrast_pairs: int = Field(default=0, ge=0)
    contrast: float | None = Field(default=None, gt=0)


class Repeatability(Stored):
    """What a bundle knows of how well its measurements repeat.

    Parameters
    ----------
    fitted
        When and on what, for the reader.
    accepted
        Where both photographs have the verdict ``accept``.
    others
        Where one has not, or both; None in bundles that were fitted before these were told apart.
    all
        Whatever the verdicts. A promise about both kinds together is none about the worse one.
    """

    schema_version: Literal[1] = 1
    fitted: dict[str, Any] = Field(default_factory=dict)
    accepted: Limits
    others: Limits | None = None
    all: Limits

    def of_pair(self, *, both_accepted: bool) -> Limits:
        """The limits of the pairs that a pair is like."""
        if both_accepted:
            return self.accepted
        return self.all if self.others is None else self.others

    def to_json(self) -> str:
        """The text of ``repeatability.json``."""
        return self.model_dump_json() + "\n"


def fit_limits(areas: Sequence[float], diameters: Sequence[float], contrasts: Sequence[float]) -> Limits:
    """Limits from ratios of areas and largest diameters, paired, all above 0, and differences of contrast.

    All are second by first, of an unchanged lesion each.
    """
    return Limits(
        pairs=len(areas),
        area=_limit(np.log(areas)),
        diameter=_limit(np.log(diameters)),
        contrast_pairs=len(contrasts),
        contrast=_limit(np.array(contrasts)),
    )


def _limit(differences: NDArray[np.float64]) -> float | None:
    sizes = np.sort(np.abs(differences))
    rank = math.ceil(LEVEL * (len(sizes) + 1))
    return None if rank > len(sizes) or not sizes[rank - 1] > 0 else round(float(sizes[rank - 1]), 4)


def load_repeatability(bundle: Bundle) -> Repeatability | None:
    """What was fitted for a bundle; None where nothing was.

    Raises
    ------
    ModelError
        The file is not what the card says, or not of this schema.
    """
    return read_attached(Repeatability, bundle, ATTACHMENT, FILE, hint=_HINT)
