"""DICOM files made for the tests, and Debian's independent validator."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("highdicom", reason='needs the extra: pip install "dermseg[dicom]"')


@pytest.fixture(scope="session")
def files() -> ModuleType:
    """The module ``files``: makes DICOM photographs."""
    spec = importlib.util.spec_from_file_location("dicom_files", Path(__file__).with_name("files.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def validate() -> Callable[[Path], list[str]]:
    """``validate(path)``: the errors that dciodvfy finds in a file."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")

    def run(path: Path) -> list[str]:
        done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
        return [line for line in done.stderr.splitlines() if line.startswith("Error")]

    return run
