"""The machine and the libraries of a run, for its record."""

from __future__ import annotations

import platform
from importlib import import_module
from pathlib import Path
from typing import Any

from dermseg.inference.threads import available_cpus
from dermseg.version import __version__

# distribution -> module: importing the metadata reader costs more than a mask
_LIBRARIES = {
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "onnxruntime": "onnxruntime",
    "pydantic": "pydantic",
}


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
    """Versions of what decides the result; None where a library is not installed."""
    versions: dict[str, str | None] = {"dermseg": __version__, "python": platform.python_version()}
    for name, module in _LIBRARIES.items():
        try:
            versions[name] = str(import_module(module).__version__)
        except ImportError:
            versions[name] = None
    return versions
