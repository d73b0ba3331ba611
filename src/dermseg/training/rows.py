"""Which images of an index take part in a run, and their caches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dermseg.data.cache import Cache, build_cache
from dermseg.data.index import IndexRow, read_index
from dermseg.errors import UsageError
from dermseg.training.config import RunConfig, SourceConfig, expand


def select_rows(source: SourceConfig, seed: int) -> list[IndexRow]:
    """Rows of an index that take part, in the order of the index.

    Raises
    ------
    UsageError
        No image has this split.
    """
    path = expand(source.index)
    rows = [row for row in read_index(path) if row.split == source.split]
    if not rows:
        raise UsageError(f"no image has split '{source.split}'", file=path)
    if source.limit and source.limit < len(rows):
        keep = np.sort(np.random.default_rng([seed, 3]).permutation(len(rows))[: source.limit])
        rows = [rows[i] for i in keep]
    return rows


def open_cache(config: RunConfig, source: SourceConfig, workers: int, say: Callable[[str], None]) -> Cache:
    """The decoded images of a source, decoded now where they are not yet.

    Raises
    ------
    DataError, ImageError, MaskError
        See ``build_cache``.
    """
    data = config.data

    def show(done: int, total: int) -> None:
        if done % 1000 == 0 or done == total:
            say(f"decoding {source.index} {source.split}: {done}/{total}")

    return build_cache(
        select_rows(source, config.seed),
        data.cache_size,
        expand(data.cache_dir),
        masks=config.model.masks,
        filters=config.model.filters,
        workers=workers,
        progress=show,
    )
