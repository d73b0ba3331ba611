"""What a run was made with: versions, processor, commit."""

from __future__ import annotations

import ctypes
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dermseg.inference.machine import describe_machine, library_versions

_TRAINING_LIBRARIES = ("torch", "onnx", "onnxscript", "safetensors")


def describe_environment() -> dict[str, Any]:
    """Versions, processor, threads, device and source commit as plain values."""
    versions = library_versions()
    for name in _TRAINING_LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "versions": versions,
    }


def _commit() -> str | None:
    """The commit of the source tree, or None outside one.

    An installed package often lies below a repository, in its ``.venv``: the file must be part of the commit.
    """
    here = Path(__file__)
    command = ["git", "-C", str(here.parent), "rev-parse", "HEAD", f"HEAD:./{here.name}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return found.split()[0]


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to reuse large blocks; True where that was possible.

    By default every activation above 32 MiB is a fresh mapping, returned to the system when freed: each
    step then waits for the kernel to clear its pages again. Reusing them trains 1.5 times faster at
    256 px on two cores, for a peak of memory that stays with the process.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(m_mmap_max, 0) and mallopt(m_trim_threshold, -1))
