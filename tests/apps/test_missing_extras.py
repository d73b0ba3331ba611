"""Without an extra a verb ends with the command that brings it, not with a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# None in sys.modules: to import it fails as it does where it is not installed.
PROGRAM = (
    "import sys; sys.modules[sys.argv[1]] = None; from dermseg.apps.cli.main import main; main(sys.argv[2:])"
)


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("torch", "explain photo.png -o out", "train"),
        ("torch", "train --from default -o out", "train"),
        ("torch", "suite run suite.yaml", "train"),
        ("onnx", "uncertainty fit bundle --data index.csv", "train"),
        ("onnx", "export run -o out", "train"),
        ("uvicorn", "serve --port 0", "api"),
        ("pydicom", "dicom deidentify photo.png -o out", "dicom"),
        ("pydicom", "dicom listen pacs.yaml", "dicom"),
        ("pynetdicom", "dicom listen pacs.yaml", "dicom"),
        ("PySide6", "desktop photo.png", "desktop"),
        ("streamlit", "dashboard", "dashboard"),
    ],
)
def test_a_missing_extra_is_one_line(module: str, arguments: str, extra: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    (tmp_path / "pacs.yaml").write_text("folder: queue\nsend: {folder: results}\n", encoding="utf-8")
    command = [sys.executable, "-c", PROGRAM, module, *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert f'pip install "dermseg[{extra}]"' in done.stderr and "Traceback" not in done.stderr
