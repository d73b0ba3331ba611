"""Synthetic images as a data set: written as files with masks and an index, like any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dermseg.data.index import IndexRow, write_index
from dermseg.data.synthetic import synthesize
from dermseg.errors import DataError
from dermseg.files import atomic_write
from dermseg.images.masks import encode_mask
from dermseg.images.overlay import encode_png

DATASET = "synthetic"


def write_synthetic(
    folder: Path,
    number: int,
    *,
    seed: int = 0,
    size: tuple[int, int] = (576, 768),
    progress: Callable[[int, int], None] | None = None,
) -> list[IndexRow]:
    """Write ``images/``, ``masks/``, ``parameters.jsonl`` and ``index.csv`` below a folder.

    Parameters
    ----------
    seed
        Of the first image; the next has the next seed, so a longer run begins with a shorter one's images.
    size
        Height and width in pixels.

    Returns
    -------
    list of IndexRow
        In the order of the seeds; image i has the id ``synthetic_<seed + i>``.
    """
    rows, parameters = [], []
    for done in range(number):
        image, mask, drawn = synthesize(seed + done, size)
        if not mask.any():
            raise DataError(f"seed {seed + done} draws no lesion at {size[1]}x{size[0]} pixels")
        image_id = f"{DATASET}_{seed + done:06d}"
        # PNG: a JPEG would soften the border that the mask is exact about.
        data = encode_png(image)
        names = f"images/{image_id}.png", f"masks/{image_id}_segmentation.png"
        for name, content in zip(names, (data, encode_mask(np.asarray(mask))), strict=True):
            atomic_write(folder / name, content)
        rows.append(
            IndexRow(
                image_id=image_id,
                image=names[0],
                masks=(names[1],),
                dataset=DATASET,
                group=f"{DATASET}/{image_id}",
                width=image.shape[1],
                height=image.shape[0],
                licence="CC-0",
                sha256=hashlib.sha256(data).hexdigest(),
                root=folder,
            )
        )
        parameters.append(json.dumps({"image_id": image_id, "seed": seed + done, **drawn}, default=float))
        if progress:
            progress(done + 1, number)
    atomic_write(folder / "parameters.jsonl", "".join(f"{line}\n" for line in parameters).encode("utf-8"))
    write_index(rows, folder / "index.csv")
    return rows
