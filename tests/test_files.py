"""Files that are there whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dermseg.errors import DermsegError
from dermseg.files import Tries, atomic_write


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for data in (b"first", b"second"):
        atomic_write(path, data)
        assert path.read_bytes() == data
    (tmp_path / "new" / "folder").mkdir()
    with pytest.raises(DermsegError, match="cannot be written"):
        atomic_write(tmp_path / "new" / "folder", b"x")
    with pytest.raises(DermsegError, match="cannot be written"):
        atomic_write(path / "below-a-file", b"x")
    assert sorted(item.name for item in path.parent.iterdir()) == ["file", "folder"]
    assert path.read_bytes() == b"second"


def test_work_that_ended_its_process_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "tries"
    program = (
        "import os, sys; from pathlib import Path; from dermseg.files import Tries;"
        "print(Tries(Path(sys.argv[1])).begin('one'), flush=True); os._exit(9)"
    )
    command = [sys.executable, "-c", program, str(path)]
    counts = [subprocess.run(command, capture_output=True, check=False).stdout for _ in range(3)]
    assert list(map(int, counts)) == [0, 1, 2]
    tries = Tries(path)
    assert [tries.begin("other"), tries.begin("other")] == [0, 1]
    tries.end()
    assert tries.begin("other") == 0
    path.write_bytes(b"\xff no text")
    assert tries.begin("other") == 0
    assert Tries(tmp_path / "none" / "tries").begin("one") == 0
