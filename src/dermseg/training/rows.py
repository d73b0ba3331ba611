"""Which images of an index take part in a run, and their caches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dermseg.data.cache import Cache, build_cache, cache_key
from dermseg.data.index import IndexRow, read_index, short_names
from dermseg.errors import ImageError, MaskError, TrainingError, UsageError
from dermseg.inference.bundle import Bundle
from dermseg.training.checkpoint import LAST, load_state
from dermseg.training.config import RunConfig, SourceConfig, expand
from dermseg.training.resolve import digest_ids
from dermseg.training.teachers import soften

_SAY_EVERY_S = 10.0


def select_rows(source: SourceConfig, seed: int) -> list[IndexRow]:
    """Rows of an index that take part, in the order of the index.

    Raises
    ------
    UsageError
        No image has this split.
    """
    path = expand(source.index)
    every = read_index(path)
    rows = [row for row in every if row.split == source.split]
    if not rows:
        there = ", ".join(sorted({row.split for row in every if row.split}))
        raise UsageError(
            f"no image has split '{source.split}'",
            file=path,
            hint=f"splits in this index: {there}"
            if there
            else f"none has a split yet: dermseg data split {path} -o {path} --overwrite",
        )
    if source.limit and source.limit < len(rows):
        keep = np.sort(np.random.default_rng([seed, 3]).permutation(len(rows))[: source.limit])
        rows = [rows[i] for i in keep]
    return rows


def of_other_images(run: Path, config: RunConfig, val: Sequence[Sequence[IndexRow]]) -> list[str]:
    """What is to be said where the images that chose a run's best weights are others than ``val``, the rows
    of each source now: nothing where they are the same, or where the checkpoint that knows it is gone."""
    try:
        began = load_state(run / LAST).get("image_ids")
    except TrainingError:
        return []
    now = [digest_ids([row.image_id for row in rows]) for rows in val]
    if began is None or began[len(config.data.train) :] == now:
        return []
    return [
        "The validation images, on which threshold and post-processing were chosen, are others than when the "
        "network was trained: it may have been trained on some of them."
    ]


def source_names(sources: Sequence[SourceConfig]) -> list[str]:
    """``split:index`` of each; see ``short_names``."""
    return short_names([Path(s.index) for s in sources], [f"{s.split}:" for s in sources])


def open_cache(
    config: RunConfig,
    source: SourceConfig,
    workers: int,
    say: Callable[[str], None],
    teachers: Sequence[Bundle] = (),
) -> Cache:
    """The decoded images of a source, decoded now where they are not yet; masks softened by ``teachers``.

    Raises
    ------
    DataError, ImageError, MaskError
        See ``build_cache``.
    """
    data, said = config.data, time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        nonlocal said
        if done == total or time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            say(f"{what} {source.index} {source.split}: {done}/{total}")

    rows, folder = select_rows(source, config.seed), expand(data.cache_dir)
    masks, filters = config.model.masks, config.model.filters
    try:
        cache = build_cache(
            rows,
            data.cache_size,
            folder,
            masks=masks,
            filters=filters,
            workers=workers,
            progress=partial(show, "decoding"),
        )
    except (ImageError, MaskError) as error:  # the first of perhaps many
        others = f"dermseg data check {expand(source.index)} finds all such files"
        error.hint = f"{error.hint}; {others}" if error.hint else others
        raise
    if not (teachers and source.soften):
        return cache
    # teachers have filters of their own, or none: they look at the images as they are
    plain = build_cache(rows, data.cache_size, folder, masks=masks, workers=workers) if filters else cache
    key = cache_key(rows, data.cache_size, masks)
    ask = partial(show, "asking the teachers")
    softened = soften(plain, key, folder, teachers, data.teacher_weight, progress=ask)
    return Cache(cache.images, softened.masks, cache.image_ids)
