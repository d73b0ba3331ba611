"""Masks softened by trained networks: knowledge distillation (Hinton 2015, arXiv:1503.02531).

Outlines differ between people. What several networks agree on is a steadier target than one person's line,
and a small network that learns a mixture of both comes close to the mean of large ones. The teachers look at
each image once, upright, before training; their mean probability is mixed into the mask and kept beside the
decoded images, so an epoch costs what it did before.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.cache import Cache, new_map
from dermseg.errors import ConfigError
from dermseg.inference.bundle import Bundle, is_bundled_name, load_bundle
from dermseg.inference.predictor import Model
from dermseg.inference.runtimes import select_variant
from dermseg.training.config import RunConfig, expand

_BATCH = 4


def find_teachers(config: RunConfig) -> list[Bundle]:
    """The teachers of a run; their networks are opened when masks have to be softened.

    Raises
    ------
    UnknownModelError
        A bundle does not exist.
    ModelError
        The card of one is damaged.
    ConfigError
        The run has several masks per image; the teachers know one.
    """
    if config.data.teachers and config.model.masks != 1:
        raise ConfigError(
            f"data.teachers gives one mask per image, and the model learns {config.model.masks}",
            hint="data.teachers=[]",
        )
    return [load_bundle(name if is_bundled_name(name) else expand(name)) for name in config.data.teachers]


def soften(
    cache: Cache,
    key: str,
    folder: Path,
    teachers: Sequence[Bundle],
    weight: float,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cache:
    """The cache with masks ``(1 - weight) * mask + weight * mean probability of the teachers``.

    Parameters
    ----------
    cache
        Images ``uint8 (N, S, S, 3)`` and masks ``uint8 (N, S, S)``.
    key
        Name of the cache; the softened masks are kept in ``folder`` under it and the teachers' hashes.
    weight
        Share of the teachers, 0 to 1.
    progress
        Is told how many images of how many are done.
    """
    digest = hashlib.sha256(f"{weight}".encode())
    for teacher in teachers:
        card = teacher.card
        settings = (card.preprocessing.model_dump_json(), str(card.postprocessing.temperature))
        variant = card.variant(select_variant(teacher, None, None))
        stored = [variant.sha256, *([variant.partner.sha256] if variant.partner else [])]
        digest.update("\0".join((*stored, *settings)).encode())
    path = folder / f"{key}-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        _write(path, cache, teachers, weight, progress)
    return Cache(cache.images, np.load(path, mmap_mode="r"), cache.image_ids)


def _write(
    path: Path,
    cache: Cache,
    teachers: Sequence[Bundle],
    weight: float,
    progress: Callable[[int, int], None],
) -> None:
    models = [Model(teacher) for teacher in teachers]
    # a folder, like those of the cache: it clears away what a kill leaves
    temporary = Path(tempfile.mkdtemp(prefix=f"{path.stem}.", suffix=".tmp", dir=path.parent))
    file = temporary / path.name
    try:
        masks = new_map(file, cache.masks.shape)
        for first in range(0, len(cache), _BATCH):
            part = slice(first, first + _BATCH)
            found = np.mean([_probability(model, cache.images[part]) for model in models], axis=0)
            masks[part] = np.rint((1 - weight) * cache.masks[part] + 255 * weight * found)
            progress(min(first + _BATCH, len(cache)), len(cache))
        masks.flush()
        del masks  # Windows renames no mapped file
        file.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _probability(teacher: Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probability ``float32 (N, S, S)`` for images ``uint8 (N, S, S, 3)``."""
    small = teacher.infer(np.stack([teacher.prepare(np.ascontiguousarray(image)) for image in images]))
    size = images.shape[2], images.shape[1]
    return np.stack([cv2.resize(p, size, interpolation=cv2.INTER_LINEAR) for p in small])
