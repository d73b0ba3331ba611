"""Ray itself: on this machine, or the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dermseg.errors import DermsegError
from dermseg.inference.threads import available_cpus

START_TRIES = 3
CONNECT_S = 20.0
_HINT = "RAY_ADDRESS names the cluster to use"


@contextlib.contextmanager
def connect(workers: int | None, *, quiet: bool) -> Iterator[int]:
    """Connect to the cluster of RAY_ADDRESS, or start Ray here; the number of workers to use.

    Parameters
    ----------
    workers
        How many are wanted; None takes the CPUs of the cluster.
    quiet
        Keep what Ray prints off stderr.

    Raises
    ------
    DermsegError
        Ray cannot start, or there is none at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # dermseg sends nothing to anyone
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its remarks on itself; failures are reported
    local = not (address := os.environ.get("RAY_ADDRESS", ""))
    if not local:
        _reach(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if local:
        cpus = available_cpus()
        options |= {"address": "local", "num_cpus": max(cpus, workers or 1), "include_dashboard": False}
    # Ray prints remarks on dead workers; stdout is for --json
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere if quiet else sys.stderr):
        yield from _connected(workers, options, local=local)


def _reach(address: str) -> None:
    """Refuse a place where nothing answers: Ray would try for many minutes, and say nothing."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "auto": Ray finds out by itself
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:  # the latter of a port above 65535
        reason = getattr(error, "strerror", None) or error
        raise DermsegError(f"no Ray at {address}: {reason}", hint=_HINT) from None


def _connected(workers: int | None, options: dict[str, Any], *, local: bool) -> Iterator[int]:
    import ray

    for attempt in reversed(range(START_TRIES if local else 1)):
        try:
            with _without_stderr():
                ray.init(**options)
            break
        except Exception as error:  # a bare Exception where a busy machine takes more than 20 seconds
            ray.shutdown()
            if attempt:
                continue
            where = "Ray cannot be started here" if local else f"no Ray at {os.environ['RAY_ADDRESS']}"
            raise DermsegError(f"{where}: {error}", hint=_HINT) from None
    try:
        resources: dict[str, float] = ray.cluster_resources()
        yield workers or max(1, int(resources.get("CPU", 1)))
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Let nothing through to stderr, from C++ either: Ray says there which level of log it was told to use.

    What goes wrong in ``ray.init`` is an exception.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
