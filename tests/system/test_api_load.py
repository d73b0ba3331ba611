"""The load, kill and fuzz experiments of the REST server, small: ``make soak`` runs them in full."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra [api]")

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, name: str, *options: str) -> tuple[int, dict[str, Any]]:
    output = tmp_path / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / name), "-o", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert output.is_file(), done.stderr[-3000:]
    return done.returncode, json.loads(output.read_text())


def test_load_overload_and_recovery(tmp_path: Path) -> None:
    options = ["--requests", "300", "--count", "20", "--overload-seconds", "5"]
    code, result = run(tmp_path, "api_load.py", *options)
    assert code in (0, 2), result  # 2: right, but slower than on an idle machine
    assert result["steady"]["wrong"] == 0 and result["steady"]["statuses"] == {"200": 300}


def test_kills(tmp_path: Path) -> None:
    code, result = run(tmp_path, "api_kill.py", "--kills", "3", "--images", "4")
    assert code == 0, result


def test_fuzz(tmp_path: Path) -> None:
    code, result = run(tmp_path, "api_fuzz.py", "--bodies", "150", "--seed", "3")
    assert code == 0, result
