"""Names that are safe to write outputs under: made portable, made unique, sorted as people sort.

A name from inside a zip is text by a stranger. It never becomes a path as it is: drive letters, leading
slashes, ``..`` and characters that some file system refuses are taken out here, once, for everybody.
"""

from __future__ import annotations

import re
import unicodedata

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff]')
_DRIVE = re.compile(r"^[A-Za-z]:")
_DIGITS = re.compile(r"([0-9]+)")
_RESERVED = frozenset(  # device names on Windows, with or without an extension
    ["con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))]
)
MAX_PART_BYTES = 180  # file systems take 255; outputs add "_segmentation.png" and a temporary suffix
MAX_NAME_CHARS = 600


def portable_name(stored: str) -> str:
    """Turn a stored name (of a zip member) into a relative POSIX path that every system can write.

    Parameters
    ----------
    stored
        The name as the archive has it; ``/`` and ``\\`` both separate.

    Returns
    -------
    str
        Never absolute, never empty, no part is ``.`` or ``..`` or ends in a dot or space.

    Examples
    --------
    >>> portable_name("C:\\\\photos\\\\..\\\\..\\\\a.jpg")
    'photos/a.jpg'
    """
    text = unicodedata.normalize("NFC", stored).replace("\\", "/")
    parts: list[str] = []
    for raw in text.split("/"):
        part = _DRIVE.sub("", raw) if not parts else raw
        part = _FORBIDDEN.sub("_", part).strip().rstrip(". ")
        if not part:  # also "." and "..", which rstrip has emptied
            continue
        if part.partition(".")[0].rstrip().casefold() in _RESERVED:
            part = f"_{part}"
        parts.append(shorten(part))
    while len(parts) > 1 and sum(map(len, parts)) + len(parts) > MAX_NAME_CHARS:
        del parts[0]  # the end of a path says more than its beginning
    return "/".join(parts) or "unnamed"


def printable_name(relative: str) -> str:
    """A relative path of the local disk, with only what cannot be written to a table taken out."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "_", relative)


def typed_name(name: str) -> str:
    """A name to compare others with: the disks of Macs hold two signs where a keyboard types one ("ü")."""
    return unicodedata.normalize("NFC", name)


def cell_name(name: str) -> str:
    """A relative path in a table that people open in a spreadsheet, where ``=`` begins a formula.

    >>> cell_name("=1+1.jpg"), cell_name("a.jpg")
    ('./=1+1.jpg', 'a.jpg')
    """
    return f"./{name}" if name.startswith(("=", "+", "-", "@")) else name


def shorten(part: str) -> str:
    """One part of a path, cut to ``MAX_PART_BYTES`` in UTF-8 where it is longer; it keeps its extension."""
    if len(part.encode("utf-8", "replace")) <= MAX_PART_BYTES:
        return part
    stem, dot, extension = part.rpartition(".")
    if not dot or len(extension) > 8:
        stem, extension = part, ""
    room = MAX_PART_BYTES - len(extension.encode("utf-8", "replace")) - 1
    cut = stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return f"{cut}.{extension}".rstrip(". ")


class UniqueNames:
    """Hands out every name once; case and Unicode form do not make a difference.

    Masks of ``A.jpg`` and ``a.jpg`` would overwrite each other on Windows and macOS.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str, parent: str = "") -> str:
        """Return `name`, or ``parent/name``, or that with ``-2``, ``-3`` ...: the first that is free."""
        if self._claim(name):
            return name
        if parent:
            name = f"{parent}/{name}"
            if self._claim(name):
                return name
        folder, slash, last = name.rpartition("/")
        stem, dot, extension = last.rpartition(".")
        if not stem:
            stem, dot, extension = last, "", ""
        number = 2
        while not self._claim(f"{folder}{slash}{stem}-{number}{dot}{extension}"):
            number += 1
        return f"{folder}{slash}{stem}-{number}{dot}{extension}"

    def _claim(self, name: str) -> bool:
        key = typed_name(name).casefold()
        if key in self._taken:
            return False
        self._taken.add(key)
        return True


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts ``image2`` before ``image10``.

    Digits are compared by length and text, not as int: a name may hold thousands of them.
    """
    pieces = _DIGITS.split(name.casefold())
    key = [
        (1, len(piece.lstrip("0")), piece.lstrip("0")) if index % 2 else (0, 0, piece)
        for index, piece in enumerate(pieces)
    ]
    return (*key, (0, 0, name))
