"""Changes of a mask, tile by tile and compressed: what undo keeps and the journal writes.

A change is stored as the exclusive or of before and after. Applying it again takes it back, so undo and redo
are one function, and a tile that a stroke barely touched compresses to some tens of bytes.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
TILE = 256  # pixels


@dataclass(frozen=True)
class TileChange:
    """One tile of one layer: row and column in tiles, and the packed exclusive or."""

    layer: str
    row: int
    column: int
    data: bytes


@dataclass(frozen=True)
class Step:
    """What one action changed. ``name`` is a short English word for it, such as ``brush``."""

    name: str
    changes: tuple[TileChange, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that the step touches, sorted."""
        return tuple(sorted({change.layer for change in self.changes}))

    def pack(self) -> bytes:
        """One block of bytes; ``unpack`` reads it."""
        table = [[c.layer, c.row, c.column, len(c.data)] for c in self.changes]
        head = json.dumps({"name": self.name, "changes": table}).encode()
        return struct.pack("<I", len(head)) + head + b"".join(c.data for c in self.changes)

    @classmethod
    def unpack(cls, block: bytes) -> Step:
        """Read what ``pack`` wrote.

        Raises
        ------
        ValueError
            Not such a block.
        """
        try:
            (length,) = struct.unpack_from("<I", block)
            head = json.loads(block[4 : 4 + length])
            at, changes = 4 + length, []
            for layer, row, column, size in head["changes"]:
                changes.append(TileChange(str(layer), int(row), int(column), block[at : at + size]))
                at += size
            return cls(str(head["name"]), tuple(changes))
        except (struct.error, KeyError, TypeError) as error:
            raise ValueError(f"not a step: {error}") from None


def tile_region(row: int, column: int) -> tuple[slice, slice]:
    """Rows and columns of a tile; NumPy cuts them at the image's edge."""
    return slice(row * TILE, (row + 1) * TILE), slice(column * TILE, (column + 1) * TILE)


def tiles_of(x: int, y: int, width: int, height: int) -> list[tuple[int, int]]:
    """Rows and columns of the tiles that a box touches."""
    if width <= 0 or height <= 0:
        return []
    rows = range(y // TILE, (y + height - 1) // TILE + 1)
    columns = range(x // TILE, (x + width - 1) // TILE + 1)
    return [(row, column) for row in rows for column in columns]


def difference(layer: str, row: int, column: int, before: Mask, after: Mask) -> TileChange | None:
    """The change of a tile from one state to another; None where nothing changed."""
    changed = before ^ after
    if not changed.any():
        return None
    return TileChange(layer, row, column, zlib.compress(np.packbits(changed).tobytes(), 1))


def flip(mask: Mask, change: TileChange) -> tuple[int, int, int, int]:
    """Apply a change to a layer, or take it back; gives the box (x, y, width, height) it touched.

    Raises
    ------
    ValueError
        The change does not fit the layer.
    """
    part = mask[tile_region(change.row, change.column)]
    try:
        bits = np.unpackbits(np.frombuffer(zlib.decompress(change.data), np.uint8), count=part.size)
    except zlib.error as error:
        raise ValueError(f"damaged tile: {error}") from None
    part ^= bits.reshape(part.shape).view(np.bool_)
    return change.column * TILE, change.row * TILE, part.shape[1], part.shape[0]
