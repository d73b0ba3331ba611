"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermseg.errors import DermsegError
from dermseg.files import atomic_write


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
