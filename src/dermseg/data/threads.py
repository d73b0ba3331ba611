"""The same work for each of many images, by threads, with its progress told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_threads(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Result]:
    """What ``work`` gives for each item, in their order.

    Parameters
    ----------
    progress
        Called after each item that was taken, with how many were taken and how many there are.
    """
    with ThreadPoolExecutor(workers) as pool:
        for number, result in enumerate(pool.map(work, items), start=1):
            yield result
            if progress:
                progress(number, len(items))
