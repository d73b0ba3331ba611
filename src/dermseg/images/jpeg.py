"""JPEG headers: size, orientation, and whether the file is all there.

The segments before the first scan are read one by one; EXIF, XMP, colour profiles and comments are left out
of what the decoder gets, only JFIF and Adobe stay (they say how colours are coded). A JPEG is complete if
its end marker (FF D9) stands after the first scan: inside coded data FF is always followed by 00 or a
restart marker, so the marker cannot appear there by chance. Source: ITU-T T.81 (1992), annex B.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from dermseg.errors import ImageError
from dermseg.images.headers import Header
from dermseg.images.tiff import exif_orientation

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_KEPT = frozenset([0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *_FRAME_MARKERS])
# A progressive file needs about ten scans. Each costs a pass over the whole picture, so a small file of
# thousands of scans keeps a decoder busy for hours.
MAX_SCANS = 100
_MAX_SEGMENTS = 20_000
SOS, EOI = b"\xff\xda", b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # one with a body, or the end


class _Frame(NamedTuple):
    width: int
    height: int
    bits: int
    channels: int
    progressive: bool


def probe_jpeg(data: bytes) -> Header:
    """Read a JPEG's header.

    Raises
    ------
    ImageError
        Damaged before the first scan, more scans than any real file has, or 12 bits per channel.
    """
    view, position = memoryview(data), 2
    kept: list[bytes | memoryview] = [b"\xff\xd8"]
    frame: _Frame | None = None
    orientation = 1
    for _ in range(_MAX_SEGMENTS):
        position = _marker(data, position)
        marker = data[position + 1]
        if marker == 0xD9:
            raise ImageError("the JPEG ends before its picture begins")
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a body
            position += 2
            continue
        length = struct.unpack_from(">H", data, position + 2)[0]
        end = position + 2 + length
        if length < 2 or end > len(data):
            raise ImageError("the JPEG header is cut off or damaged")
        if marker == 0xDA:
            break
        body = view[position + 4 : end]
        if marker in _FRAME_MARKERS:
            if frame is not None:
                raise ImageError("the JPEG has two frame headers: damaged")
            bits, height, width, channels = struct.unpack_from(">BHHB", body)
            frame = _Frame(width, height, bits, channels, marker in _PROGRESSIVE)
        elif marker == 0xE1 and orientation == 1 and bytes(body[:6]) == b"Exif\0\0":
            orientation = exif_orientation(bytes(body[6:]))  # a further block may come without it
        if marker in _KEPT or (marker, bytes(body[:5])) in ((0xE0, b"JFIF\0"), (0xEE, b"Adobe")):
            kept.append(view[position:end])
        position = end
    else:
        raise ImageError(f"the JPEG has more than {_MAX_SEGMENTS:,} header parts")
    if frame is None:
        raise ImageError("the JPEG has no frame header: damaged")
    if frame.bits != 8:
        raise ImageError(
            f"JPEG with {frame.bits} bits per channel is not read", hint="save it as PNG or TIFF"
        )
    # A decoder stops after the first scan where that has every channel of a sequential frame. Else bytes that
    # look like a scan may stand behind the end: counting them is fast, and nearly always enough.
    more = frame.progressive or length < 3 or data[position + 4] < frame.channels
    if more and data.count(SOS, position) > MAX_SCANS and _scans(data, position) > MAX_SCANS:
        raise ImageError(f"the JPEG has more than the {MAX_SCANS} scans that are read")
    truncated = ""
    if data.rfind(EOI, position) >= 0:
        kept.append(view[position:])
    else:
        truncated = "the end of the JPEG is missing"
        # The marker lets the decoder fill what is missing with grey instead of asking for more.
        kept += [view[position : _last_whole(data, position)], EOI]
    return Header(
        "JPEG",
        frame.width,
        frame.height,
        8,
        b"".join(kept),
        orientation,
        truncated=truncated,
        samples=frame.channels,
    )


def _scans(data: bytes, position: int) -> int:
    """Scans from `position` to the end marker, counted as a decoder meets them, up to one too many.

    What phones put behind the end (the film of a "motion photo", many megabytes) may hold any bytes.
    """
    count = 0
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None or found[0] == EOI or count > MAX_SCANS:
            return count
        count += found[0] == SOS
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise ImageError(f"the JPEG has more than {_MAX_SEGMENTS:,} parts")


def _last_whole(data: bytes, start: int) -> int:
    """Where to end a truncated file: before a table or scan header that is itself cut off."""
    last = max(data.rfind(bytes([0xFF, marker]), start) for marker in (0xC4, 0xDA, 0xDB, 0xDD))
    header = data[last + 2 : last + 4]
    cut = len(header) < 2 or last + 2 + struct.unpack(">H", header)[0] > len(data)
    return last if cut and last > start else len(data)


def _marker(data: bytes, position: int) -> int:
    """Position of the marker that must stand here; FF may be repeated as filling before it."""
    if data[position] != 0xFF:
        raise ImageError("the JPEG header is damaged")
    while data[position + 1] == 0xFF:
        position += 1
    return position
