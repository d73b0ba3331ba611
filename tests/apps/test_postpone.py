"""A postponed module is imported when something is asked of it, once, and looks like any other."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.apps.cli.postpone import postpone


def test_a_module_waits_until_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "waiting"
    package.mkdir()
    (package / "__init__.py").write_text("count = 0\n")
    (package / "later.py").write_text(
        "import waiting\nwaiting.count += 1\nvalue = 7\ndef double(x):\n    return 2 * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    waiting = importlib.import_module("waiting")
    try:
        postpone("waiting.later", "double")
        first = importlib.import_module("waiting.later")
        double = first.double
        assert waiting.count == 0
        assert double(4) == 8 and waiting.count == 1
        assert first.value == 7 and waiting.later.value == 7 and waiting.count == 1
        real = sys.modules["waiting.later"]
        with pytest.raises(AttributeError, match="nothing_here"):
            _ = first.nothing_here
        postpone("waiting.later")
        assert sys.modules["waiting.later"] is real and first.value == 7 and waiting.count == 1
    finally:
        for name in ("waiting.later", "waiting"):
            sys.modules.pop(name, None)


def test_segment_reads_no_metadata_and_whoever_does_finds_them(tmp_path: Path) -> None:
    image = tmp_path / "one.png"
    cv2.imwrite(str(image), np.full((40, 50, 3), 180, np.uint8))
    code = (
        "import sys, atexit; from dermseg.apps.cli.main import run\n"
        "def look():\n"
        "    assert 'pydantic' in sys.modules and 'email.message' not in sys.modules\n"
        "    import importlib.metadata; assert importlib.metadata.version('pydantic')\n"
        "    from importlib.metadata import version; assert version('numpy')\n"
        "    print('looked')\n"
        "atexit.register(look); run()"
    )
    command = [sys.executable, "-c", code, "segment", str(image), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith("looked\n"), done.stderr
