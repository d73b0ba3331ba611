"""Any image file to RGB pixels, safely: the one door through which strangers' files come in.

The order matters. Bytes are limited while they are read; the format is taken from the content; the size in
the header is checked before anything is decoded; a JPEG is decoded at the scale that is needed; then colours
are converted and the picture is turned. Whatever was changed on the way is said in ``info.notes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dermseg.errors import ImageError
from dermseg.images.convert import orient, to_rgb
from dermseg.images.decode import decode
from dermseg.images.dicom import dicom_installed
from dermseg.images.headers import Header, check_pixels, dicom_error, extension_note
from dermseg.images.probe import byte_limit, probe
from dermseg.images.sources import DICOM_EXTENSIONS, ImageSource, as_source

MAX_PIXELS = 100_000_000
VIEW_MIN_SIDE = 448  # pixels of the shorter side below which an outline is hard to judge


@dataclass(frozen=True)
class ImageInfo:
    """What an image file holds.

    Attributes
    ----------
    width, height
        Full size in pixels, after orientation.
    format
        ``JPEG``, ``PNG``, ``TIFF``, ``BMP``, ``WEBP``, ``HEIC`` or ``DICOM``, by content.
    mode
        Pillow's name of the colour mode in the file (``RGB``, ``L``, ``CMYK``, ``I;16`` ...).
    bits
        Bits per channel in the file.
    orientation
        EXIF orientation that was applied, 1 to 8.
    frames
        Pictures in the file; the first is used.
    spacing_mm
        Distance of pixel centres (row, column) in millimetres; None unless the file is calibrated. The dpi
        in EXIF, JFIF, PNG and TIFF is a wish of a printer or a default, not a calibration.
    taken
        Day on which it was taken, of DICOM files; the clock of a camera may never have been set.
    notes
        What was converted or is odd, in plain words.
    """

    width: int
    height: int
    format: str
    mode: str
    bits: int
    orientation: int = 1
    frames: int = 1
    spacing_mm: tuple[float, float] | None = None
    taken: date | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedImage:
    """Pixels and what is known about them.

    Attributes
    ----------
    pixels
        uint8 (h, w, 3) RGB, turned as meant, possibly reduced.
    info
        About the file; its width and height are the full ones.
    scale
        ``pixels`` width divided by ``info.width``; 1.0 unless reduced.
    """

    pixels: npt.NDArray[np.uint8]
    info: ImageInfo
    scale: float = 1.0


def load_image(
    source: ImageSource | Path | str | bytes,
    *,
    min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
    allow_drawn_on: bool = False,
) -> LoadedImage:
    """Load an image; safe to call from several threads.

    Parameters
    ----------
    source
        A source of ``find_images``, a path, the text ``archive.zip!member``, or the bytes of a file.
    min_side
        JPEGs may be decoded at 1/2, 1/4 or 1/8 as long as both sides keep this many pixels. None: full size.
    max_pixels
        Larger pictures are refused before they are decoded.
    allow_truncated
        Take what is there of a JPEG, PNG or BMP that is cut off.
    allow_drawn_on
        Take dermseg's own DICOM pictures with the outline drawn on them, which are no photographs any more.

    Returns
    -------
    LoadedImage

    Raises
    ------
    ImageError
        Missing, empty, truncated, damaged, too large, HEIC or DICOM without its extra, or no image.

    Notes
    -----
    Needs at most about 8 bytes per pixel beside the file itself, more for pictures coded progressively.
    """
    name, label = ("", None) if isinstance(source, bytes) else _names(source)
    try:
        header = open_header(source, max_pixels)
        if header.mask_only:
            raise ImageError("the DICOM file is a Segmentation, not a photograph")
        if header.drawn_on and not allow_drawn_on:
            raise ImageError("the DICOM file is a picture with dermseg's outline on it, not a photograph")
        image = decode(header, min_side=min_side, allow_truncated=allow_truncated)
        pixels, notes = to_rgb(image, header.bits)
    except ImageError as error:
        if error.file is not None or label is None:
            raise
        raise ImageError(error.message, file=label, hint=error.hint) from error
    except MemoryError as error:
        raise ImageError("not enough memory for this image", file=label) from error
    notes = (*extension_note(name, header.format), *_notes(header, image), *notes, *_values(header, pixels))
    mode = image.mode
    del image  # not both forms of a large picture longer than needed
    pixels = orient(pixels, header.orientation)
    width, height = oriented_size(header)
    info = ImageInfo(
        width,
        height,
        header.format,
        mode,
        header.bits,
        header.orientation,
        header.frames,
        header.spacing_mm,
        header.taken,
        notes,
    )
    return LoadedImage(pixels, info, pixels.shape[1] / width)


def load_view(
    source: ImageSource | Path | str | bytes,
    loaded: LoadedImage,
    *,
    max_pixels: int = MAX_PIXELS,
    allow_truncated: bool = False,
) -> npt.NDArray[np.uint8]:
    """Pixels for people to look at: those of ``loaded``, or decoded again where a network needed fewer.

    Parameters
    ----------
    source, max_pixels, allow_truncated
        As ``loaded`` was made with.

    Returns
    -------
    uint8 (h, w, 3); both sides have ``VIEW_MIN_SIDE`` pixels where the image has them.

    Raises
    ------
    ImageError
        See ``load_image``.
    """
    if loaded.scale == 1 or min(loaded.pixels.shape[:2]) >= VIEW_MIN_SIDE:
        return loaded.pixels
    return load_image(
        source, min_side=VIEW_MIN_SIDE, max_pixels=max_pixels, allow_truncated=allow_truncated
    ).pixels


def open_header(source: ImageSource | Path | str | bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Read a file and its header, and check the size; decodes nothing.

    Raises
    ------
    ImageError
        As ``load_image``.
    """
    if isinstance(source, bytes):
        if not source:
            raise ImageError("the file is empty (0 bytes)")
        data = source
    else:
        found = as_source(source)
        if Path(found.name).suffix.lower() in DICOM_EXTENSIONS and not dicom_installed():
            raise dicom_error()
        data = found.read_bytes(inspect=lambda head: byte_limit(head, max_pixels))
    header = probe(data)
    check_pixels(header.width, header.height, max_pixels)
    return header


def oriented_size(header: Header) -> tuple[int, int]:
    """Width and height of the picture as meant."""
    sides = header.width, header.height
    return sides if header.orientation < 5 else sides[::-1]


def _names(source: ImageSource | Path | str) -> tuple[str, str]:
    found = as_source(source)
    return found.name, found.label


def _notes(header: Header, image: Image.Image) -> tuple[str, ...]:
    notes = list(header.notes)
    if header.truncated:
        notes.append(f"truncated: {header.truncated}; the missing part is blank")
    if header.frames > 1:
        notes.append(f"first of {header.frames} pictures used")
    if header.orientation != 1:
        notes.append(f"turned as the camera noted (orientation {header.orientation})")
    if header.bits > 8 and image.mode in ("L", "RGB", "RGBA", "LA", "CMYK", "RGBX"):
        notes.append(f"{header.bits} bits per channel scaled to 8")
    return tuple(notes)


def _values(header: Header, pixels: npt.NDArray[np.uint8]) -> tuple[str, ...]:
    """A remark when a JPEG ends in the exact grey that libjpeg puts where coded data is missing, or when a
    microscope's 12 bits of colour stand in 16."""
    if header.bits == 16 and header.samples > 1 and pixels.size and pixels.max() < 16:
        return ("only a sixteenth of the range of 16 bits is used, so it looks dark",)
    corner = pixels[-2:, -8:]
    if header.format == "JPEG" and not header.truncated and pixels.size > 4096 and (corner == 128).all():
        return ("ends in the flat grey that stands for missing data: may be damaged",)
    return ()
