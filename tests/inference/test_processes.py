"""Worker processes: what they give back, what happens when one dies, and when the parent does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from dermseg.errors import ModelError
from dermseg.inference.bundle import load_bundle
from dermseg.inference.processes import WorkerError, run_processes

# What spawned processes are given must be importable there: names of the standard library and of dermseg.


def test_every_job_gives_one_result() -> None:
    start = partial(partial, pow, 2)
    found = run_processes(range(2, 50), start, processes=2, threads=2, stop=threading.Event())
    assert sorted(found) == [2**n for n in range(2, 50)]


def test_nothing_new_is_begun_after_stop() -> None:
    stop = threading.Event()
    found = run_processes(range(2, 500), partial(partial, pow, 2), processes=1, threads=1, stop=stop)
    next(found)
    stop.set()
    assert len(list(found)) <= 2


def test_errors_come_back_as_they_are() -> None:
    found = run_processes(
        ["no-such-bundle"], partial(partial, load_bundle), processes=1, threads=1, stop=threading.Event()
    )
    with pytest.raises(ModelError, match="no-such-bundle"):
        list(found)


def test_a_killed_process_ends_the_batch_with_a_reason() -> None:
    found = run_processes(
        [3, 3, 3], partial(partial, os._exit), processes=1, threads=1, stop=threading.Event()
    )
    with pytest.raises(WorkerError, match=r"exit code 3.*--resume"):
        list(found)


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks and signals")
def test_processes_of_a_killed_parent_leave_at_once(tmp_path: Path) -> None:
    import fcntl

    script = tmp_path / "parent.py"
    script.write_text(
        "import fcntl, sys, threading, time\n"
        "from functools import partial\n"
        "from dermseg.inference.processes import SharedFile, run_processes\n"
        "if __name__ == '__main__':\n"
        "    file = open(sys.argv[1], 'w')\n"
        "    fcntl.flock(file, fcntl.LOCK_EX)\n"
        "    for _ in run_processes([0, 0, 60, 60], partial(partial, time.sleep), processes=2, threads=1,\n"
        "                           stop=threading.Event(), lock=SharedFile(file.fileno())):\n"
        "        print('working', flush=True)\n"
    )
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, script, lock], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline()
        with lock.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        parent.kill()
    deadline = time.monotonic() + 40  # less than they have to sleep
    with lock.open() as file:
        while True:  # the lock is free when the last process that holds it is gone
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                assert time.monotonic() < deadline, "a worker process lives on"
                time.sleep(0.05)
