"""Locations, as an index writes them: a path relative to a folder, or ``archive.zip!member``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dermseg.images.sources import ImageSource

_ARCHIVE = re.compile(r"\.zip!", re.IGNORECASE)


def split_location(location: str) -> tuple[str, str | None]:
    """``"a/b.zip!c/d.jpg"`` -> ``("a/b.zip", "c/d.jpg")``; a plain path has no member.

    >>> split_location("a/b.zip!c/d.jpg")
    ('a/b.zip', 'c/d.jpg')
    >>> split_location("a/b.jpg")
    ('a/b.jpg', None)
    """
    found = _ARCHIVE.search(location)
    if found is None:
        return location, None
    return location[: found.end() - 1], location[found.end() :]


def locate(source: ImageSource, root: Path) -> str:
    """The location text of a source, as an index in the folder ``root`` writes it."""
    path = _relative(Path(source.path), root)
    return path if source.member is None else f"{path}!{source.member}"


def relocate(location: str, old_root: Path, new_root: Path) -> str:
    """A location relative to another folder."""
    path, member = split_location(location)
    moved = _relative(old_root / path, new_root)
    return moved if member is None else f"{moved}!{member}"


def _relative(path: Path, root: Path) -> str:
    # normpath, not resolve: a symbolic link inside a data folder is the user's choice and stays.
    absolute = os.path.normpath(Path.cwd() / path)
    try:
        return Path(os.path.relpath(absolute, os.path.normpath(Path.cwd() / root))).as_posix()
    except ValueError:  # another drive (Windows): there is no relative path
        return Path(absolute).as_posix()
