"""What is known of an image file before it is decoded: its format, from the content, and its header."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from dermseg.errors import ImageError

Format = Literal["JPEG", "PNG", "TIFF", "BMP", "WEBP", "HEIC", "DICOM"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXTENSIONS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "HEIC": (".heic", ".heif", ".hif"),
    "DICOM": (".dcm", ".dicom"),
}
# DICOM without its preamble: an element of group 0002 or 0008, its VR in letters or a length below 64 kB.
_BARE_DICOM = re.compile(rb"[\x02\x08]\x00[\x00-\x20]\x00(?:[A-Z]{2}|..\x00\x00)", re.DOTALL)
COPY_AGAIN = "copy it again from where it came, or save it anew in an image program"
_CONVERT = "save it as JPEG, PNG or TIFF with an image program; another name alone changes nothing"
_DEVELOP = "save it as JPEG with the program that came with the camera"
# Kinds of the container that pictures and films of phones share (ISO/IEC 14496-12, 23008-12).
_HEIC = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_STILLS = (b"mif1", b"mif2", b"msf1", b"avif", b"avis")


@dataclass(frozen=True)
class Header:
    """What the header says, in the geometry of the stored pixels (before orientation).

    Attributes
    ----------
    format
        The format that the content has, whatever the file is called.
    width, height
        Pixels as stored.
    bits
        Bits per channel.
    orientation
        EXIF orientation, 1 to 8.
    frames
        Number of pictures in the file.
    payload
        The file without metadata: what a decoder is given.
    truncated
        Why the file is not complete; empty if it is.
    notes
        Remarks for the user.
    samples
        Channels per pixel; 0 where the header was not asked for them.
    white_is_zero
        Grey whose smallest value is white (TIFF).
    unsigned
        Its numbers are whole and not below 0 (TIFF).
    swapped
        Packed, and in the byte order of Motorola (TIFF).
    spacing_mm
        Millimetres between pixel centres (row, column) where the file is calibrated (DICOM).
    taken
        Day on which the picture was taken, where the file says it and its clock can be trusted (DICOM).
    mask_only
        The file holds a mask and no photograph (DICOM Segmentation).
    drawn_on
        The file is dermseg's own picture with the outline drawn on it (DICOM).
    """

    format: Format
    width: int
    height: int
    bits: int
    payload: bytes = field(repr=False)
    orientation: int = 1
    frames: int = 1
    truncated: str = ""
    notes: tuple[str, ...] = ()
    samples: int = 0
    white_is_zero: bool = False
    unsigned: bool = True
    swapped: bool = False
    spacing_mm: tuple[float, float] | None = None
    taken: date | None = None
    mask_only: bool = False
    drawn_on: bool = False


def sniff(head: bytes) -> Format:
    """Tell the format from the first bytes (at least 132 where there are as many).

    Raises
    ------
    ImageError
        A format that is known but not read, or no image at all.
    """
    if head[128:132] == b"DICM":  # first: the 128 bytes before it may pretend to be a TIFF (PS3.10 7.1)
        return "DICOM"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(PNG_SIGNATURE):
        return "PNG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        if head[8:10] == b"CR":  # Canon's CR2
            raise camera_raw_error()
        return "TIFF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and len(head) > 18:
        return "BMP"
    if _BARE_DICOM.match(head):
        return "DICOM"
    if (
        head.startswith((b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW"))
        or head[4:12] == b"ftypcrx "
    ):
        raise camera_raw_error()
    if head[4:8] == b"ftyp" and _HEIC & _brands(head):
        return "HEIC"
    for name, known in (
        ("AVIF", head[4:8] == b"ftyp" and head[8:12] in _STILLS),
        ("GIF", head.startswith(b"GIF8")),
        ("JPEG 2000", head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"))),
        ("JPEG XL", head.startswith((b"\0\0\0\x0cJXL ", b"\xff\x0a"))),
        ("Photoshop", head.startswith(b"8BPS")),
        ("PDF", head.startswith(b"%PDF")),
    ):
        if known:
            raise ImageError(f"{name} files are not read", hint=_CONVERT)
    if head[4:8] == b"ftyp" or (head.startswith(b"RIFF") and head[8:12] == b"AVI "):
        raise ImageError("is a film, not a photograph", hint="save a still picture of it as JPEG or PNG")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise ImageError(
            "is a zip file, not an image", hint="name it with the extension .zip; if it has it, copy it again"
        )
    if not any(head):
        raise ImageError("holds only zeros, not an image")
    raise ImageError("the file is not an image of a kind that is read (JPEG, PNG, TIFF, BMP, WebP)")


def _brands(head: bytes) -> set[bytes]:
    """What a file of the container says that it is, and what else it can be read as."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[i : i + 4] for i in range(16, end - 3, 4))}


def camera_raw_error() -> ImageError:
    """The error for what a camera's sensor saw: what such a file shows at once is a small preview."""
    return ImageError("camera raw files are not read", hint=_DEVELOP)


def dicom_error() -> ImageError:
    """The error for DICOM files without the extra that reads them."""
    return ImageError("reading DICOM needs an optional dependency", hint='pip install "dermseg[dicom]"')


def extension_note(name: str, format_: Format) -> tuple[str, ...]:
    """A note when a file's extension says another format than its content has."""
    _, dot, extension = name.lower().rpartition(".")
    own = f".{extension}"
    named = next((key for key, values in _EXTENSIONS.items() if own in values), None)
    if not dot or named in (None, format_):
        return ()
    return (f"named {own} but holds {format_}",)


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture of more than `max_pixels`.

    Raises
    ------
    ImageError
        Names the size, the limit and what to do.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"{width:,} x {height:,} pixels are {width * height / 1e6:,.1f} megapixels, "
            f"over the limit of {max_pixels / 1e6:g}",
            hint="if the picture is as you expect, raise the limit: --max-megapixels, max_pixels in Python",
        )
