"""The header of any image file, read before anything is decoded.

Every decoder trusts the sizes in a header and reserves memory for them. So the header is read here first,
by small parsers that cannot be made to allocate, and only the parts that carry pixels are handed on:
metadata (EXIF, XMP, colour profiles, texts, animation) does not reach the JPEG and PNG decoders, which
closes most of the ways to crash or slow them. Sources: PNG 3rd edition (W3C 2025), RFC 9649 (WebP, 2024),
Microsoft BITMAPINFOHEADER.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from dermseg.errors import ImageError
from dermseg.images.dicom import probe_dicom
from dermseg.images.headers import PNG_SIGNATURE, Format, Header, check_pixels, sniff
from dermseg.images.heic import probe_heic
from dermseg.images.jpeg import probe_jpeg
from dermseg.images.tiff import exif_orientation, probe_tiff

_MAX_CHUNKS = 200_000  # a file of nothing but empty chunks must not keep us busy for minutes


def probe(data: bytes) -> Header:
    """Read the header of a whole file.

    Raises
    ------
    ImageError
        Not an image, or a header that contradicts itself.
    """
    parsers: dict[Format, Callable[[bytes], Header]] = {
        "JPEG": probe_jpeg,
        "PNG": probe_png,
        "TIFF": probe_tiff,
        "BMP": probe_bmp,
        "WEBP": probe_webp,
        "HEIC": probe_heic,
        "DICOM": probe_dicom,
    }
    format_ = sniff(data[:132])
    try:
        header = parsers[format_](data)
    except (struct.error, IndexError) as error:
        raise ImageError(f"the {format_} header is cut off") from error
    if header.width < 1 or header.height < 1:
        raise ImageError(f"the {format_} header gives the size {header.width} x {header.height}")
    return header


def byte_limit(head: bytes, max_pixels: int) -> int:
    """How many bytes a file that begins with `head` may have; checks the size where `head` holds it.

    Raises
    ------
    ImageError
        Not an image, or more than `max_pixels`.
    """
    format_ = sniff(head[:132])
    if format_ == "PNG" and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
    elif format_ == "BMP" and len(head) >= 26:
        width, height = _bmp_size(head)
    else:
        return 1 << 40  # the caller's own limit holds
    check_pixels(width, height, max_pixels)
    return 16 * abs(int(width * height)) + (64 << 20)  # 4 channels of 4 bytes, and room for metadata


def probe_png(data: bytes) -> Header:
    """PNG: keeps IHDR, PLTE, tRNS, IDAT and IEND, and checks the checksum of each of them."""
    length, kind, width, height, bits, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13:
        raise ImageError("the PNG header is damaged")
    view, position, count = memoryview(data), 8, 0
    kept: list[bytes | memoryview] = [PNG_SIGNATURE]
    orientation, frames, truncated, ended = 1, 1, "", False
    while not ended:
        if position + 12 > len(data):
            truncated = "the end of the PNG is missing"
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            truncated = f"the PNG ends inside its {_printable(kind)} part"
            if kind == b"IDAT":  # what is there can still be shown where truncated files are allowed
                kept.append(_png_chunk(kind, bytes(view[position + 8 :])))
            break
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise ImageError(f"the checksum of the {_printable(kind)} part of the PNG is wrong: damaged")
            kept.append(view[position:end])
        elif kind == b"eXIf":
            orientation = exif_orientation(bytes(view[position + 8 : end - 4]))
        elif kind == b"acTL" and length >= 4:
            frames = max(1, struct.unpack_from(">I", data, position + 8)[0])
        elif not kind[0] & 0x20:  # an upper-case first letter: cannot be shown without it
            raise ImageError(f"the PNG has an unknown part {_printable(kind)}: damaged")
        ended = kind == b"IEND"
        position = end
        count += 1
        if count > _MAX_CHUNKS:
            raise ImageError(f"the PNG has more than {_MAX_CHUNKS:,} parts")
    if truncated:
        kept.append(_png_chunk(b"IEND", b""))
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0)
    return Header("PNG", width, height, bits, b"".join(kept), orientation, frames, truncated, samples=samples)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _printable(kind: bytes) -> str:
    return ascii(kind.decode("latin-1")).strip("'")


def _bmp_size(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2 core header: 16-bit sizes
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # a negative height only says that the top row comes first


def probe_bmp(data: bytes) -> Header:
    """BMP: size from the core or the information header."""
    width, height = _bmp_size(data)
    start = struct.unpack_from("<I", data, 10)[0]
    core = struct.unpack_from("<I", data, 14)[0] == 12
    depth = struct.unpack_from("<H", data, 24 if core else 28)[0]
    packed = not core and struct.unpack_from("<I", data, 30)[0] in (1, 2)
    needed = start + (width * depth + 31) // 32 * 4 * height  # rows are filled up to 4 bytes
    truncated = "" if packed or len(data) >= needed else f"the BMP has {len(data):,} of {needed:,} bytes"
    return Header("BMP", width, height, 1 if depth == 1 else 8, data, truncated=truncated)


def probe_webp(data: bytes) -> Header:
    """WebP: simple lossy (VP8), simple lossless (VP8L) and extended (VP8X) files."""
    riff_size, kind = struct.unpack_from("<I", data, 4)[0], data[12:16]
    truncated = "the WebP is shorter than it says" if riff_size + 8 > len(data) else ""
    orientation, frames = 1, 1
    if kind == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            raise ImageError("the WebP header is damaged")
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        packed = struct.unpack_from("<I", data, 21)[0]
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        orientation, frames = _webp_parts(data)
    else:
        raise ImageError("the WebP header is damaged")
    return Header("WEBP", width, height, 8, data, orientation, frames, truncated)


def _webp_parts(data: bytes) -> tuple[int, int]:
    """Orientation and number of frames from the chunks of an extended file."""
    orientation, frames, position = 1, 0, 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            orientation = exif_orientation(data[position + 8 : position + 8 + min(length, 1 << 20)])
        frames += kind == b"ANMF"
        position += 8 + length + (length & 1)
    return orientation, max(1, frames)
