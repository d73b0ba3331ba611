"""The machine and the libraries of a run, for its record."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from dermseg.inference.threads import available_cpus
from dermseg.version import __version__

_LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "onnxruntime", "pydantic")


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_machine() -> dict[str, Any]:
    """Processor, CPUs that this process may use, operating system."""
    return {
        "cpu": cpu_name(),
        "cpus": available_cpus(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }


def library_versions() -> dict[str, str | None]:
    """Versions of what decides the result; None where a library is not installed under its usual name."""
    versions: dict[str, str | None] = {"dermseg": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions
