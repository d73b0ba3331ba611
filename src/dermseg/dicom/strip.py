"""Metadata out of coded pictures, pixels untouched: JPEG, JPEG-LS, JPEG 2000, RLE and PNG.

Cameras write owner, place (GPS), time and serial number into EXIF and XMP, and the JPEG frames inside DICOM
files carry the same segments. What a decoder needs stays byte for byte; the turn that EXIF orders
(orientation) is written back alone. Sources: ITU-T T.81 annex B, T.87 annex C, T.800 annex A, DICOM PS3.5
annex G (RLE), PNG (W3C 2025).
"""

from __future__ import annotations

import struct

import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, RLELossless

from dermseg.errors import ImageError
from dermseg.images.dicom_pixels import JPEG, JPEG_2000, JPEG_LS
from dermseg.images.headers import PNG_SIGNATURE

_STANDALONE = frozenset([0x01, *range(0xD0, 0xD8)])
# Critical chunks and those that say how colours are meant; iCCP has a name in it, so sRGB and gAMA must do.
_PNG_KEPT = frozenset(
    [b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"sRGB", b"gAMA", b"cHRM", b"sBIT", b"pHYs"]
)


def strip_jpeg(data: bytes, *, orientation: int = 1) -> tuple[bytes, int]:
    """A JPEG or JPEG-LS without application data, comments and anything behind its end.

    Parameters
    ----------
    data
        The file or frame.
    orientation
        Written into a fresh EXIF of its own unless 1.

    Returns
    -------
    bytes
        The stripped file.
    int
        How many parts were taken away.

    Raises
    ------
    ImageError
        Damaged: where its parts begin and end is not certain, so nothing can be promised.
    """
    if not data.startswith(b"\xff\xd8"):
        raise ImageError("does not begin like a JPEG")
    kept, position, removed = [b"\xff\xd8"], 2, 0
    if orientation != 1:
        kept.append(_orientation_segment(orientation))
    try:
        while True:
            if data[position] != 0xFF:
                raise ImageError("the JPEG is damaged")
            while data[position + 1] == 0xFF:  # filling
                position += 1
            marker = data[position + 1]
            if marker == 0xD9:
                kept.append(b"\xff\xd9")
                removed += position + 2 < len(data.rstrip(b"\0\xff"))
                return b"".join(kept), removed
            if marker in _STANDALONE:
                kept.append(data[position : position + 2])
                position += 2
                continue
            end = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
            if end > len(data) or end < position + 4:
                raise ImageError("the JPEG is damaged")
            body = data[position + 4 : end]
            if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14:
                kept.append(b"\xff\xe0\x00\x10" + body[:12] + b"\0\0")  # without its thumbnail
                removed += len(body) > 14
            elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
                kept.append(b"\xff\xee\x00\x0e" + body[:12])
            elif 0xE0 <= marker <= 0xEF or marker == 0xFE:
                removed += 1
            else:
                if marker == 0xDA:
                    end = _scan_end(data, end)
                kept.append(data[position:end])
            position = end
    except (IndexError, struct.error):
        raise ImageError("the JPEG is cut off") from None


def _scan_end(data: bytes, position: int) -> int:
    """Where coded data end: at a marker that is no stuffing (00 to 7F: JPEG-LS) and no restart."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0:
            raise IndexError
        following = data[position + 1]
        if following >= 0x80 and following not in _STANDALONE and following != 0xFF:
            return position
        position += 1 if following == 0xFF else 2


def _orientation_segment(orientation: int) -> bytes:
    tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def strip_jpeg2000(data: bytes) -> tuple[bytes, int]:
    """A JPEG 2000 code stream without comments; the boxes of a JP2 file around it go too.

    Raises
    ------
    ImageError
        There is no code stream, its header is damaged, or comments stand in its tiles.
    """
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ImageError("there is no JPEG 2000 code stream")
    position, removed, kept = start + 2, int(start > 0), [b"\xff\x4f"]
    try:
        while (marker := struct.unpack_from(">H", data, position)[0]) != 0xFF90:  # start of the first tile
            end = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
            if marker >> 8 != 0xFF or end > len(data):
                raise ImageError("the JPEG 2000 header is damaged")
            if marker == 0xFF64:
                removed += 1
            else:
                kept.append(data[position:end])
            position = end
        last = data.rfind(b"\xff\xd9")
        if last < position:
            raise ImageError("the JPEG 2000 code stream has no end")
        _check_tiles(data, position, last)
    except struct.error:
        raise ImageError("the JPEG 2000 header is cut off") from None
    kept.append(data[position : last + 2])
    return b"".join(kept), removed


def _check_tiles(data: bytes, position: int, end: int) -> None:
    """Refuse comments in the headers of tiles: their lengths stand in other places, too, and no encoder
    is known that writes any."""
    while position < end:
        if data[position : position + 2] != b"\xff\x90":
            raise ImageError("the JPEG 2000 tiles are damaged")
        (length,) = struct.unpack_from(">I", data, position + 6)  # of the tile part; 0: up to the end
        start, position = position + 12, position + length if length else end
        while (marker := struct.unpack_from(">H", data, start)[0]) != 0xFF93:  # start of data
            if marker == 0xFF64:
                raise ImageError("the JPEG 2000 tiles hold comments, which are not taken out")
            start += 2 + struct.unpack_from(">H", data, start + 2)[0]
        if not start < position <= end:
            raise ImageError("the JPEG 2000 tiles are damaged")


def strip_rle(data: bytes, size: int) -> tuple[bytes, int]:
    """An RLE frame without what stands in the unused part of its header, between and behind its segments.

    Parameters
    ----------
    data
        The frame.
    size
        Bytes of an unpacked segment: one of each pixel.

    Raises
    ------
    ImageError
        Damaged.
    """
    if len(data) < 64:
        raise ImageError("the RLE header is cut off")
    count, *offsets = struct.unpack_from("<16L", data)
    starts = offsets[:count]
    if not 0 < count < 16 or starts != sorted(starts) or not 64 <= starts[0] <= starts[-1] <= len(data):
        raise ImageError("the RLE header is damaged")
    limits = [*starts[1:], len(data)]
    ends = [_run_end(data, start, limit, size) for start, limit in zip(starts, limits, strict=True)]
    rests = [data[64 : starts[0]], *(data[end:limit] for end, limit in zip(ends, limits, strict=True))]
    removed = sum(any(rest) for rest in rests) + any(offsets[count:])
    if not removed:  # zeros at most, which pad
        return data, 0
    segments = [data[start:end] + bytes((end - start) % 2) for start, end in zip(starts, ends, strict=True)]
    places = [64 + sum(map(len, segments[:number])) for number in range(count)]
    return struct.pack("<16L", count, *places, *[0] * (15 - count)) + b"".join(segments), removed


def _run_end(data: bytes, position: int, limit: int, size: int) -> int:
    """Where a segment has given `size` bytes: behind it may stand anything."""
    try:
        while size > 0:
            code = data[position]
            if code < 128:  # so many bytes and one as they are
                size -= code + 1
                position += code + 2
            elif code > 128:  # one byte again and again
                size -= 257 - code
                position += 2
            else:
                position += 1
    except IndexError:
        raise ImageError("the RLE data are cut off") from None
    if size or position > limit:
        raise ImageError("the RLE data are damaged")
    return position


def strip_png(data: bytes) -> tuple[bytes, int]:
    """A PNG without texts, times, EXIF, profiles and anything behind its end.

    Raises
    ------
    ImageError
        Damaged.
    """
    kept, position, removed = [PNG_SIGNATURE], len(PNG_SIGNATURE), 0
    while True:
        if position + 12 > len(data):
            raise ImageError("the PNG is cut off")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ImageError("the PNG is cut off")
        if kind in _PNG_KEPT:
            kept.append(data[position:end])
        else:
            removed += 1
        position = end
        if kind == b"IEND":
            return b"".join(kept), removed + int(position < len(data))


def _check_bits(dataset: Dataset, syntax: str) -> None:
    """Refuse pictures with something in the bits above the stored ones, where overlays stood before 2004.

    Cleared they are not: of a file that gives too few stored bits, these would be the picture. Signed values
    fill them with their sign.
    """
    stored, high = int(dataset.get("BitsStored") or 0), int(dataset.get("HighBit") or 0)
    if dataset.BitsAllocated != 16 or not 0 < stored < 16 or dataset.get("PixelRepresentation"):
        return
    used = (1 << stored) - 1 << max(0, high - stored + 1)
    words = np.frombuffer(dataset.PixelData, "<u2" if UID(syntax).is_little_endian else ">u2")
    if (words & np.uint16(~used & 0xFFFF)).any():
        raise ImageError("bits outside of the stored ones are set, where overlays may stand (PS3.3 C.9.2)")


def strip_pixels(dataset: Dataset, syntax: str) -> int:
    """Take metadata out of the coded frames of a data set, and bytes behind the last pixel of native ones.

    Returns
    -------
    int
        How many parts were taken away.

    Raises
    ------
    ImageError
        Damaged, or in a coding that is not searched.
    """
    for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if name in dataset:
            del dataset[name]
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    if not UID(syntax).is_encapsulated:
        bits = int(dataset.Rows) * int(dataset.Columns) * frames
        bits *= int(dataset.get("SamplesPerPixel") or 1) * int(dataset.BitsAllocated)
        if str(dataset.get("PhotometricInterpretation") or "") == "YBR_FULL_422":
            bits = bits * 2 // 3
        size = -(-bits // 8)
        extra = len(dataset.PixelData) > size + size % 2
        if extra:
            dataset.PixelData = dataset.PixelData[:size] + b"\0" * (size % 2)
        _check_bits(dataset, syntax)
        return int(extra)
    if syntax == RLELossless:
        size = -(-int(dataset.Rows) * int(dataset.Columns) * min(8, int(dataset.BitsAllocated)) // 8)
        stripped = [strip_rle(f, size) for f in generate_frames(dataset.PixelData, number_of_frames=frames)]
    elif syntax in JPEG | JPEG_LS:
        stripped = [strip_jpeg(f) for f in generate_frames(dataset.PixelData, number_of_frames=frames)]
    elif syntax in JPEG_2000:
        stripped = [strip_jpeg2000(f) for f in generate_frames(dataset.PixelData, number_of_frames=frames)]
    else:
        raise ImageError(f"pixels in the coding {UID(syntax).name} are not searched for metadata")
    dataset.PixelData = encapsulate([frame for frame, _ in stripped])
    dataset["PixelData"].VR = "OB"
    return sum(count for _, count in stripped)
