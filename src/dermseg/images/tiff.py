"""TIFF directories: the size of the first picture, and the orientation tag in TIFF and EXIF.

EXIF is a small TIFF, so one reader serves both. It follows only what it needs, with a limit on entries and
on directories, and never reserves memory by what the file says. Source: TIFF 6.0 (Adobe 1992), BigTIFF
(AWare Systems 2007), EXIF 2.32 (CIPA DC-008).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from dermseg.errors import ImageError
from dermseg.images.headers import Header, camera_raw_error

SUBFILE, DNG_VERSION = 254, 50706
_REDUCED = 1  # bit of SUBFILE: a smaller copy of another picture in the file
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 274, 277
PLANAR, TILE_WIDTH, TILE_HEIGHT, SAMPLE_FORMAT = 284, 322, 323, 339
_LAB = (8, 9, 10)  # values of PHOTOMETRIC: CIELAB, ICCLAB, ITULAB
_NOT_COMPRESSED, _ONE_BY_ONE, _UNSIGNED = 1, 2, 1  # of COMPRESSION, PLANAR, SAMPLE_FORMAT
_MAX_ENTRIES = 4096
_MAX_FRAMES = 10_000
_INTEGERS = {1: (1, "B"), 3: (2, "H"), 4: (4, "I"), 13: (4, "I"), 16: (8, "Q")}


class Tag(NamedTuple):
    """First value of an integer tag, where it stands and in which struct code."""

    value: int
    position: int
    code: str


class Layout(NamedTuple):
    """Byte order and the widths that differ between TIFF and BigTIFF."""

    order: str
    entry: int
    counter: str
    offset: str


_CLASSIC = (12, "H", "I")
_BIG = (20, "Q", "Q")


def read_layout(data: bytes) -> tuple[Layout, int]:
    """Byte order of a TIFF, and the offset of its first directory.

    Raises
    ------
    ImageError
        No TIFF header.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ImageError("the TIFF header is damaged")
    magic = struct.unpack_from(f"{order}H", data, 2)[0]
    if magic == 42:
        return Layout(order, *_CLASSIC), struct.unpack_from(f"{order}I", data, 4)[0]
    if magic == 43:
        return Layout(order, *_BIG), struct.unpack_from(f"{order}Q", data, 8)[0]
    raise ImageError("the TIFF header is damaged")


def read_directory(data: bytes, layout: Layout, offset: int) -> tuple[dict[int, Tag], int]:
    """Integer tags of one directory, and the offset of the next (0 after the last).

    Raises
    ------
    ImageError
        The directory lies outside the file or has too many entries.
    struct.error
        The directory is cut off.
    """
    if not 8 <= offset < len(data):
        raise ImageError("the TIFF's directory lies outside the file: cut off or damaged")
    count = struct.unpack_from(layout.order + layout.counter, data, offset)[0]
    if count > _MAX_ENTRIES:
        raise ImageError(f"a TIFF directory with {count:,} entries: damaged")
    position = offset + struct.calcsize(f"={layout.counter}")
    room = struct.calcsize(f"={layout.offset}")
    tags: dict[int, Tag] = {}
    for _ in range(count):
        tag, kind, number = struct.unpack_from(f"{layout.order}HH{layout.offset}", data, position)
        if kind in _INTEGERS and number > 0:
            width, code = _INTEGERS[kind]
            place = position + 4 + room
            if width * number > room:  # the values stand elsewhere
                place = struct.unpack_from(layout.order + layout.offset, data, place)[0]
            if place + width <= len(data):
                value = struct.unpack_from(layout.order + code, data, place)[0]
                tags[tag] = Tag(value, place, layout.order + code)
        position += layout.entry
    return tags, struct.unpack_from(layout.order + layout.offset, data, position)[0]


def exif_orientation(exif: bytes) -> int:
    """Orientation, 1 to 8, from EXIF data; 1 where there is none or it cannot be read."""
    data = exif.removeprefix(b"Exif\0\0") + bytes(
        8
    )  # some writers leave out the offset of the next directory
    try:
        layout, offset = read_layout(data)
        tags, _ = read_directory(data, layout, offset)
    except (ImageError, struct.error):
        return 1
    value = tags[ORIENTATION].value if ORIENTATION in tags else 1
    return value if 1 <= value <= 8 else 1


def probe_tiff(data: bytes) -> Header:
    """Read the header of a TIFF or BigTIFF; the first directory is the picture.

    Raises
    ------
    ImageError
        No size, a directory outside the file, tiles far larger than the picture, camera raw (DNG, NEF,
        ARW), whose first directory is a thumbnail, or a layout of which decoders make other colours.
    """
    layout, offset = read_layout(data)
    tags, following = read_directory(data, layout, offset)
    if DNG_VERSION in tags or (SUBFILE in tags and tags[SUBFILE].value & _REDUCED):
        raise camera_raw_error()
    if WIDTH not in tags or HEIGHT not in tags:
        raise ImageError("the TIFF does not say its size: damaged")
    width, height = tags[WIDTH].value, tags[HEIGHT].value
    if TILE_WIDTH in tags and TILE_HEIGHT in tags:
        tile = tags[TILE_WIDTH].value * tags[TILE_HEIGHT].value
        if tile > 4 * width * height + (1 << 20):  # a decoder reserves memory for a whole tile
            raise ImageError(f"the TIFF has tiles of {tile:,} pixels, larger than the picture: damaged")
    photometric, bits = _value(tags, PHOTOMETRIC, -1), _value(tags, BITS, 1)
    samples, packed = _value(tags, SAMPLES, 1), _value(tags, COMPRESSION, 1) != _NOT_COMPRESSED
    if photometric in _LAB:
        raise ImageError("the colour mode CIELAB is not read", hint="save it as RGB")
    planes = samples > 1 and _value(tags, PLANAR, 1) == _ONE_BY_ONE
    if planes and bits > 8 and not (packed and bits == 16):
        # Pillow and OpenCV give their bytes for those of neighbouring pixels, without an error
        raise ImageError(
            f"the TIFF cannot be decoded: its channels of {bits} bits lie one after the other",
            hint="save it anew with interleaved channels, or with 8 bits per channel",
        )
    frames, seen = 1, {offset}
    while following and following not in seen and frames < _MAX_FRAMES:
        seen.add(following)
        try:
            _, following = read_directory(data, layout, following)
        except (ImageError, struct.error):
            break  # the first picture is all there
        frames += 1
    orientation = _value(tags, ORIENTATION, 1)
    payload = data
    if orientation != 1 and ORIENTATION in tags:
        # Pillow turns TIFFs by itself and other formats not. Here all are turned in one place.
        changed = bytearray(data)
        struct.pack_into(tags[ORIENTATION].code, changed, tags[ORIENTATION].position, 1)
        payload = bytes(changed)
    return Header(
        "TIFF",
        width,
        height,
        bits,
        payload,
        orientation if 1 <= orientation <= 8 else 1,
        frames,
        samples=samples,
        white_is_zero=photometric == 0,
        unsigned=_value(tags, SAMPLE_FORMAT, _UNSIGNED) == _UNSIGNED,
        swapped=packed and layout.order == ">",
    )


def _value(tags: dict[int, Tag], tag: int, otherwise: int) -> int:
    return tags[tag].value if tag in tags else otherwise
