"""Many images at once: how many threads and processes a batch gets, and how they are kept busy.

Decisions
---------
- One thread takes one image all the way from decoding to the written files. Stages of different images
  overlap by themselves, no queue lies between them, and an image is in memory only while its thread is at
  work on it. OpenCV, Pillow, zlib and ONNX Runtime release the interpreter lock.
- Each network call has one thread then. Two calls side by side do 1.6 times the work of one call on two
  threads, and batches gain nothing: 20 ms of CPU per image whether 1 or 8 go into a call. (A runtime that
  does gain from batches would collect the calls of the threads inside its session.)
- One process serves about eight threads before they wait for the interpreter lock; more CPUs get more
  processes (`processes`).
- Results do not depend on any of this: ONNX Runtime gives the same bits with 1, 2, 3 and 4 threads per call.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from dermseg.errors import UsageError
from dermseg.inference.threads import MOST_THREADS, available_cpus

J = TypeVar("J")
R = TypeVar("R")

THREADS_PER_PROCESS = 8
# A process takes about as long to start as two dozen images take on one of its threads.
IMAGES_PER_PROCESS = 200
# Ctrl-C does not interrupt a wait without a time limit on Windows.
POLL_SECONDS = 0.25
GIVE_BACK_EVERY = 250  # images


@dataclass(frozen=True, slots=True)
class Plan:
    """``processes`` times ``threads`` images at once, each network call on ``network_threads``."""

    processes: int
    threads: int
    network_threads: int


def plan_work(
    images: int, *, workers: int | None = None, processes: int | None = None, cpus: int | None = None
) -> Plan:
    """How to share the CPUs among images.

    Parameters
    ----------
    images
        How many there are. Fewer images than CPUs get several threads inside each network call, at most
        ``MOST_THREADS``.
    workers
        Images at once; None takes the CPUs.
    processes
        Processes that share them; None takes one per 8 workers where each has at least 200 images to do.
    cpus
        None takes those that this process may use.

    Raises
    ------
    UsageError
        ``workers`` or ``processes`` is below 1.
    """
    for name, value in (("workers", workers), ("processes", processes)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}")
    cpus = available_cpus() if cpus is None else cpus
    workers = max(1, min(cpus if workers is None else workers, images))
    if processes is None:
        processes = min(-(-workers // THREADS_PER_PROCESS), max(1, images // IMAGES_PER_PROCESS))
    processes = min(processes, workers)
    return Plan(processes, -(-workers // processes), max(1, min(cpus // workers, MOST_THREADS)))


def run_threads(
    jobs: Iterable[J], work: Callable[[J], R], *, threads: int, stop: threading.Event
) -> Generator[R, None, None]:
    """Do every job on one of ``threads`` threads; yield what comes out in the order of completion.

    An exception of ``work`` ends it all. When ``stop`` is set nothing new is begun; what is under way is
    finished and yielded.
    """
    queue = iter(jobs)
    done = 0
    pending: set[Future[R]] = set()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dermseg")
    try:
        while True:
            while not stop.is_set() and len(pending) < 2 * threads and (job := next(queue, None)) is not None:
                pending.add(pool.submit(work, job))
            if stop.is_set():
                pending = {future for future in pending if not future.cancel()}
            if not pending:
                return
            finished, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
            for future in finished:
                yield future.result()
                done += 1
                if done % GIVE_BACK_EVERY == 0:
                    give_back_memory()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def give_back_memory() -> None:
    """Return freed memory to the system. The C library keeps the most that was ever in use at once.

    That is two of the largest photographs side by side, sooner or later in every long run.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)
