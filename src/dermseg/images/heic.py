"""HEIC, in which iPhones keep their photographs, by libheif (the extra ``[heic]``).

libheif reads the header here too: a picture is a list of tiles, properties and turns, which is no task for a
small parser. It decodes nothing for that, and has limits of its own on what a header may make it reserve.
"""

from __future__ import annotations

import io
import re
from importlib.util import find_spec

from dermseg.errors import ImageError
from dermseg.images.headers import Header


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

    truncated = "the end of the HEIC is missing" if _cut_off(data) else ""  # libheif leaves such tiles grey
    try:
        _check_names(data)
        with HeifImageFile(io.BytesIO(data)) as image:
            width, height = image.size
            bits, pictures = int(image.info["bit_depth"]), int(image.n_frames)
    except Exception as error:  # SyntaxError, ValueError, RuntimeError, EOFError ...
        what = f"the file is truncated: {truncated}" if truncated else "the HEIC header is damaged"
        hint = "copy it again from where it came, or save it anew in an image program"
        raise ImageError(what, hint=hint) from error
    return Header("HEIC", width, height, bits, data, frames=pictures, truncated=truncated, samples=3)


def _cut_off(data: bytes) -> bool:
    """Whether one of the boxes that a file is a row of is longer than the file (ISO/IEC 14496-12)."""
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size < 8:  # 0: up to the end
            return False
        position += size
    return position > len(data)


def _check_names(data: bytes) -> None:
    """Refuse kinds and names of items that are no text: pi-heif (1.4 and before) ends the process on them.

    Raises
    ------
    ValueError
        They are not.
    """
    for found in re.finditer(rb"infe|auxC", data):
        box = data[
            found.start() - 4 : found.start() - 4 + int.from_bytes(data[found.start() - 4 :][:4], "big")
        ]
        # behind version and flags, of an item also its number (of 2 or 4 bytes) and another one of 2
        start = 12 if found[0] == b"auxC" else 16 + 2 * (box[8:9] == b"\3")
        try:
            box[start:].decode()
        except UnicodeDecodeError:
            raise ValueError("a name in it is no text") from None
