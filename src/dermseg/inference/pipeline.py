"""Decode, network and finishing side by side, with a fixed number of images in flight.

The calling thread feeds the network; a small pool decodes what comes next and finishes (post-processing,
encoding, writing) what came out. OpenCV, Pillow, zlib and ONNX Runtime all release the interpreter lock,
so these overlap. The number of images between the first and the last stage is bounded, which bounds
memory; no thread ever waits on another's queue, so there is nothing to deadlock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar


class Work(Protocol):
    """One image on its way; ``done`` is set by the stage that ends it, early where it fails."""

    @property
    def done(self) -> bool: ...


W = TypeVar("W", bound=Work)

# Ctrl-C does not interrupt a wait without a time limit on Windows.
_POLL_SECONDS = 0.25


def run_pipeline(
    jobs: Iterable[W],
    *,
    decode: Callable[[W], None],
    network: Callable[[Sequence[W]], None],
    finish: Callable[[W], None],
    workers: int,
    batch: int,
    stop: threading.Event,
) -> Iterator[W]:
    """Run every job through the stages; yield what is done in the order of completion.

    An exception in a stage ends the pipeline. What belongs to one image alone is the stage's business to
    catch and to note in the work.

    Parameters
    ----------
    decode, finish
        Called in a pool of ``workers`` threads, each for one image.
    network
        Called in this thread for up to ``batch`` images. Only what already waits is put together: the
        network never idles to fill a batch.
    stop
        When set, nothing new is begun; what is past decoding is finished and yielded.
    """
    in_flight = 2 * workers + batch
    queue = iter(jobs)
    futures: dict[Future[None], W] = {}  # what the pool is doing
    ready: deque[W] = deque()  # decoded, waiting for the network
    decoded: set[int] = set()  # id of the work that is past the network
    pool = ThreadPoolExecutor(workers, thread_name_prefix="dermseg")
    try:
        while True:
            while not stop.is_set() and len(futures) + len(ready) < in_flight:
                job = next(queue, None)
                if job is None:
                    break
                futures[pool.submit(decode, job)] = job
            if stop.is_set():
                for future in [f for f, work in futures.items() if id(work) not in decoded and f.cancel()]:
                    del futures[future]
            if not (futures or ready):
                return
            finished, _ = wait(futures, 0 if ready else _POLL_SECONDS, FIRST_COMPLETED)
            for future in finished:
                work = futures.pop(future)
                future.result()
                if work.done:
                    decoded.discard(id(work))
                    yield work
                else:
                    ready.append(work)
            if ready:
                chunk = [ready.popleft() for _ in range(min(batch, len(ready)))]
                network(chunk)
                for work in chunk:
                    if work.done:
                        yield work
                    else:
                        decoded.add(id(work))
                        futures[pool.submit(finish, work)] = work
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
