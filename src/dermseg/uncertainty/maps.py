"""Several opinions on one image, as maps: what MC dropout, flips and ensembles have in common.

Entropies are in bits, so both lie in [0, 1]. The entropy of the mean is the whole uncertainty; the mutual
information is the part that comes from the opinions differing (Depeweg et al. 2018, arXiv:1710.07283):
where every pass says 0.5, the entropy is 1 and the mutual information 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import UsageError

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """What several passes say about one image, on the network's grid.

    Parameters
    ----------
    members
        ``float32 (N, h, w)``: the probability of lesion in each pass, in [0, 1].
    """

    members: Floats = field(repr=False)

    def __post_init__(self) -> None:
        if self.members.ndim != 3 or not self.members.size:
            raise UsageError(f"passes are maps (N, h, w), got {self.members.shape}")

    @cached_property
    def mean(self) -> Floats:
        """``float32 (h, w)``: mean probability."""
        mean: Floats = self.members.mean(axis=0, dtype=np.float32)
        return mean

    @cached_property
    def std(self) -> Floats:
        """``float32 (h, w)`` in [0, 0.5]: standard deviation over the passes (of these, not an estimate)."""
        std: Floats = self.members.std(axis=0, dtype=np.float32)
        return std

    @cached_property
    def entropy(self) -> Floats:
        """``float32 (h, w)`` in [0, 1]: entropy of the mean, in bits."""
        return binary_entropy(self.mean)

    @cached_property
    def mutual_information(self) -> Floats:
        """``float32 (h, w)`` in [0, 1]: entropy of the mean minus mean entropy of the passes, in bits."""
        shared: Floats = self.entropy - binary_entropy(self.members).mean(axis=0, dtype=np.float32)
        return np.maximum(shared, np.float32(0.0))


def binary_entropy(probability: Floats) -> Floats:
    """``-p log2 p - (1 - p) log2 (1 - p)``, ``float32`` in [0, 1]; 0 at 0 and 1."""
    p = np.clip(probability, np.float32(1e-7), np.float32(1 - 1e-7))
    q = np.float32(1.0) - p
    bits: Floats = -(p * np.log2(p) + q * np.log2(q))
    return np.clip(bits, np.float32(0.0), np.float32(1.0))
