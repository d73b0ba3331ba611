"""Batches of augmented images, prepared ahead by threads (OpenCV releases the GIL).

The order of an epoch and every random choice in it are pure functions of (seed, epoch, position), so a
run that starts again in the middle of an epoch sees what an undisturbed one would have seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dermseg.data.cache import Cache
from dermseg.training.plugins import Transform

_ORDER, _AUGMENT = 1, 2  # streams of random numbers that must not overlap


@dataclass(frozen=True)
class Source:
    """A cache and how many of its images an epoch takes (None: all, each once; more: some several times)."""

    cache: Cache
    per_epoch: int | None = None


def epoch_order(sources: Sequence[Source], seed: int, epoch: int) -> NDArray[np.int64]:
    """Pairs (source, position) of an epoch, shuffled: ``int64 (n, 2)``.

    Where an epoch takes fewer images than a source has, consecutive epochs walk through a permutation,
    so every image is seen equally often.
    """
    parts = []
    for s, source in enumerate(sources):
        n = len(source.cache)
        take = source.per_epoch or n
        first = epoch * take
        picks = []
        for lap in range(first // n, (first + take - 1) // n + 1):
            permutation = np.random.default_rng([seed, _ORDER, s, lap]).permutation(n)
            picks.append(permutation[max(first - lap * n, 0) : min(first + take - lap * n, n)])
        positions = np.concatenate(picks)
        parts.append(np.column_stack([np.full(len(positions), s), positions]))
    order: NDArray[np.int64] = np.concatenate(parts).astype(np.int64)
    return np.random.default_rng([seed, _ORDER, len(sources), epoch]).permutation(order)


class Batches:
    """Iterates over one epoch in batches, from ``start_step`` on.

    Yields images ``uint8 (B, 3, S, S)`` in channels-last memory and masks ``uint8 (B, M, S, S)``, ``M`` = 1
    unless there are several classes.
    The last, smaller batch is dropped: batch norm is unstable on it.

    Parameters
    ----------
    share
        Which images of every batch are made; the rest are those of other processes.
    pinned
        Put batches in page-locked memory, from which a GPU copies while it computes.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        augmentation: Transform,
        *,
        seed: int,
        epoch: int,
        image_size: int,
        batch_size: int,
        start_step: int = 0,
        workers: int = 1,
        ahead: int | None = None,
        share: slice = slice(None),
        pinned: bool = False,
    ) -> None:
        self.sources = sources
        self.augmentation = augmentation
        self.seed, self.epoch = seed, epoch
        self.image_size, self.batch_size = image_size, batch_size
        self.order = epoch_order(sources, seed, epoch)
        self.start_step = start_step
        self.workers, self.ahead = workers, ahead or max(4, workers + 2)
        self.share, self.pinned = share, pinned

    def __len__(self) -> int:
        return max(1, len(self.order) // self.batch_size)

    def make(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of one step, made in the calling thread."""
        first = step * self.batch_size
        picks = self.order[first : first + self.batch_size][self.share]
        first += self.share.start or 0
        size = self.image_size
        images = np.empty((len(picks), size, size, 3), np.uint8)
        channels = self.sources[0].cache.masks.shape[3:]
        masks = np.empty((len(picks), size, size, *channels), np.uint8)
        for i, (s, position) in enumerate(picks):
            rng = np.random.default_rng([self.seed, _AUGMENT, self.epoch, first + i])
            cache = self.sources[s].cache
            images[i], masks[i] = self.augmentation(rng, cache.images[position], cache.masks[position], size)
        x, target = torch.from_numpy(images), torch.from_numpy(masks)
        if self.pinned:
            x, target = x.pin_memory(), target.pin_memory()
        return x.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2) if channels else target[:, None]

    def __iter__(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="batches") as pool:
            try:
                for step in range(self.start_step, len(self)):
                    waiting.append(pool.submit(self.make, step))
                    if len(waiting) > self.ahead:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
