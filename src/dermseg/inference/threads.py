"""How many CPUs this process may use: the machine's, its affinity and its container's quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# A call takes no more by itself: an operator of a small network has ended before further threads are awake.
MOST_THREADS = 16


@cache
def available_cpus() -> int:
    """CPUs that this process may keep busy at once, at least 1.

    A container that is limited to two CPUs of a machine with 64 sees 64; 64 threads would then spend
    their time being throttled.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs granted by Linux control groups (version 1 or 2), None where there is no limit.

    The tightest limit counts, from this process's group up to the root.
    """
    limits = [quota for group in _groups(root) if (quota := _quota(group)) is not None]
    return min(limits, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Folders that may hold a CPU limit. In a container the group's own path is often not mounted."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    base = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [base] if not controllers else [base / controllers, base / "cpu", base / "cpu,cpuacct"]
        inside = [part for part in group.split("/") if part not in ("", "..")]
        for mount in mounts:
            for depth in range(len(inside), -1, -1):
                yield mount.joinpath(*inside[:depth])


def _quota(group: Path) -> float | None:
    try:  # version 2: "max 100000" or "200000 100000"
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:  # version 1: -1 is no limit
        limit = int((group / "cpu.cfs_quota_us").read_text())
        return limit / int((group / "cpu.cfs_period_us").read_text()) if limit > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
