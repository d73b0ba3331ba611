"""Masks of a whole data set held at once: bits instead of bytes, deflated as in a PNG."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

_LEVEL = 1  # a mask is long runs: the lowest level leaves less than a hundredth of it


@dataclass(frozen=True, slots=True)
class PackedMask:
    """A mask ``bool (H, W)`` of ``shape`` in a few kilobytes.

    2,000 masks of 12 megapixels are 24 GB where they are held as bool.
    """

    shape: tuple[int, int]
    data: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Self:
        """Pack ``bool (H, W)``."""
        return cls((mask.shape[0], mask.shape[1]), zlib.compress(np.packbits(mask).tobytes(), _LEVEL))

    def unpack(self) -> NDArray[np.bool_]:
        """The mask, a new array each time."""
        bits = np.frombuffer(zlib.decompress(self.data), np.uint8)
        return np.unpackbits(bits, count=self.shape[0] * self.shape[1]).view(np.bool_).reshape(self.shape)
