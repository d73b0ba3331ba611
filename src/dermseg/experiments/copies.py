"""The images of a simulation: drawn once, and kept as small copies that every cell reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dermseg.data.cache import load_pair
from dermseg.data.index import IndexRow, write_index
from dermseg.files import atomic_write
from dermseg.images.masks import encode_mask
from dermseg.images.overlay import encode_png

INDEX = "index.csv"


def draw(rows: Sequence[IndexRow], limit: int | None, number: int) -> list[IndexRow]:
    """``limit`` rows, the same at each call, another draw for each ``number``; None takes all."""
    if limit is None or limit >= len(rows):
        return list(rows)
    keep = np.sort(np.random.default_rng([2018, number]).permutation(len(rows))[:limit])
    return [rows[i] for i in keep]


def write_copies(rows: Sequence[IndexRow], folder: Path, split: str, side: int) -> None:
    """Write images and masks stretched to ``side`` pixels as PNG files, with an index of their own."""
    small = []
    for i, row in enumerate(rows):
        pixels, soft = load_pair(row, side)
        image, mask = folder / f"{i:05d}.png", folder / f"{i:05d}_mask.png"
        atomic_write(image, encode_png(pixels))
        atomic_write(mask, encode_mask(soft >= 128))
        small.append(
            replace(
                row,
                image_id=f"{i:05d}",
                image=image.name,
                masks=(mask.name,),
                split=split,
                width=side,
                height=side,
                root=folder,
            )
        )
    write_index(small, folder / INDEX)
