"""Jobs on several processes with several threads each, for machines with more CPUs than one process can use.

Decisions
---------
- Processes are spawned, never forked: the parent has threads, and Windows and macOS know no other way.
- Each has one two-way pipe to the parent, which sends a job when it is that process's turn and gets a result
  back: at most twice as many jobs as threads are with one process, so memory is bounded.
- A process whose pipe closes is alone: it leaves at once, in the middle of its work. A killed parent leaves
  no one behind who writes into its folder; until the last of them is gone they hold the folder's lock, which
  they got from the parent (on Windows they have only the time it takes to notice).
- Where a process dies (for want of memory, say) the batch ends, and can be resumed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import cv2

from dermseg.errors import DermsegError
from dermseg.inference.pipeline import POLL_SECONDS

Pipe = Any  # a multiprocessing Connection, of another class on Windows
J = TypeVar("J")
R = TypeVar("R")
_LEFT_TO_THE_PARENT = (signal.SIGINT, signal.SIGTERM)


class WorkerError(DermsegError):
    """A worker process ended before its work did."""


class SharedFile:
    """An open file that spawned processes get too, and keep open until they end."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        if os.name == "nt":  # a lock belongs to one process there
            return SharedFile, (-1,)
        from multiprocessing.reduction import DupFd

        return _received, (DupFd(self.fd),)


def _received(handle: Any) -> SharedFile:
    return SharedFile(handle.detach())


def run_processes(
    jobs: Iterable[J],
    start: Callable[[], Callable[[J], R]],
    *,
    processes: int,
    threads: int,
    stop: threading.Event,
    lock: SharedFile | None = None,
) -> Generator[R, None, None]:
    """As ``pipeline.run_threads``, on ``processes`` processes.

    Parameters
    ----------
    start
        Called once in each process, gives what does one job; has to be picklable, as jobs and results do.
    lock
        A locked file that the processes hold as long as they live.

    Raises
    ------
    WorkerError
        A process was killed.
    """
    queue = iter(jobs)
    pool: dict[Pipe, BaseProcess] = {}
    under_way: dict[Pipe, int] = {}
    try:
        with _no_interrupts():  # signals may reach every process of a terminal or service; the parent decides
            for _ in range(processes):
                connection, process = _spawn(start, threads, lock)
                pool[connection], under_way[connection] = process, 0
        while True:
            while not stop.is_set():
                idlest = min(under_way, key=lambda connection: under_way[connection])
                if under_way[idlest] >= 2 * threads or (job := next(queue, None)) is None:
                    break
                with _alive(pool[idlest]):
                    idlest.send(job)
                under_way[idlest] += 1
            if not any(under_way.values()):
                return
            ready: list[Pipe] = wait(list(pool), POLL_SECONDS)
            for connection in ready:
                with _alive(pool[connection]):
                    result, error = connection.recv()
                if error is not None:
                    raise error
                under_way[connection] -= 1
                yield result
    finally:
        for connection in pool:
            connection.close()
        for process in pool.values():
            process.join()


def _spawn(
    start: Callable[[], Callable[[J], R]], threads: int, lock: SharedFile | None
) -> tuple[Pipe, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, start, threads, lock), name="dermseg", daemon=True)
    process.start()
    theirs.close()
    return ours, process


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started here ignore Ctrl-C and SIGTERM from their first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _LEFT_TO_THE_PARENT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _alive(process: BaseProcess) -> Iterator[None]:
    """A broken pipe is the end of the process behind it."""
    try:
        yield
    except (EOFError, OSError):
        process.join(1.0)
        raise WorkerError(
            f"a worker process ended with exit code {process.exitcode}; its memory may not have sufficed",
            hint="run the same command with --resume, and with fewer --workers if it happens again",
        ) from None


def _serve(
    connection: Pipe,
    start: Callable[[], Callable[[J], R]],
    threads: int,
    lock: SharedFile | None,
) -> None:
    """The life of a worker process: jobs come, results go, and when the pipe closes it is over."""
    for number in _LEFT_TO_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    sending = threading.Lock()

    def answer(result: R | None, error: BaseException | None) -> None:
        with sending, suppress(OSError):  # nobody listens any more: the other thread has seen it too
            connection.send((result, error))

    def do(job: J) -> None:
        try:
            answer(work(job), None)
        except DermsegError as error:
            answer(None, error)
        except BaseException as error:  # of whatever type; not all can be pickled
            answer(None, WorkerError(f"unexpected {type(error).__name__}: {error}"))

    try:
        work = start()
    except DermsegError as error:
        answer(None, error)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dermseg")
    with suppress(EOFError, OSError):
        while True:
            pool.submit(do, connection.recv())
    os._exit(0)  # not sys.exit: it would wait for the threads
