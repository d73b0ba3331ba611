"""HEIC, in which iPhones keep their photographs, by libheif (the extra ``[heic]``).

libheif reads the header here too: a picture is a list of tiles, properties and turns, which is no task for a
small parser. It decodes nothing for that, and has limits of its own on what a header may make it reserve.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from importlib.util import find_spec

from dermseg.errors import ImageError
from dermseg.images.headers import COPY_AGAIN, Header


def heic_installed() -> bool:
    """Whether the extra that reads HEIC is here."""
    return find_spec("pi_heif") is not None


def probe_heic(data: bytes) -> Header:
    """Size after the turns and mirrors that the file asks for, which decoding applies.

    The orientation in EXIF says the same once more and is not to be applied again (ISO/IEC 23008-12).

    Raises
    ------
    ImageError
        The extra is not installed, or the header is damaged.
    """
    if not heic_installed():
        raise ImageError(
            "reading HEIC needs an optional dependency",
            hint='pip install "dermseg[heic]"; or save it as JPEG with an image program',
        )
    from pi_heif.as_plugin import HeifImageFile

    cut_off = any(end > len(data) for _, _, end in _boxes(data))
    truncated = "the end of the HEIC is missing" if cut_off else ""  # libheif leaves such tiles grey
    try:
        _check_names(data)
        with HeifImageFile(io.BytesIO(data)) as image:
            width, height = image.size
            bits, pictures = int(image.info["bit_depth"]), int(image.n_frames)
    except Exception as error:  # SyntaxError, ValueError, RuntimeError, EOFError ...
        what = f"the file is truncated: {truncated}" if truncated else "the HEIC header is damaged"
        raise ImageError(what, hint=COPY_AGAIN) from error
    return Header("HEIC", width, height, bits, data, frames=pictures, truncated=truncated, samples=3)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of each of the boxes that a file is a row of (ISO/IEC 14496-12)."""
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        elif size == 0:
            size = len(data) - position
        if size < 8:
            return
        yield data[position + 4 : position + 8], position, position + size
        position += size


def _check_names(data: bytes) -> None:
    """Refuse kinds and names of items that are no text: pi-heif (1.4 and before) ends the process on them.

    They are in the ``meta`` box; the coded picture may hold any bytes.

    Raises
    ------
    ValueError
        They are not.
    """
    for kind, begin, end in _boxes(data):
        if kind != b"meta":
            continue
        meta = data[begin:end]
        for found in re.finditer(rb"infe|auxC", meta):
            box = found.start() - 4
            size = int.from_bytes(meta[box : box + 4], "big")
            # behind version and flags, of an item also its number (of 2 or 4 bytes) and another one of 2
            start = 12 if found[0] == b"auxC" else 16 + 2 * (meta[box + 8 : box + 9] == b"\3")
            try:
                meta[box + start : box + size].decode()
            except UnicodeDecodeError:
                raise ValueError("a name in it is no text") from None
