"""From an image file's header and payload to a Pillow image: one place that calls the decoders.

Decisions:

- Pillow decodes everything, JPEG too. Measured on 49 native dermoscopic JPEGs (120 megapixels): pixels are
  the same bit for bit as OpenCV's; at 1/4 scale both need 9 ms per image, at full scale Pillow needs 20 ms
  and OpenCV 16 ms. But OpenCV writes libjpeg's warnings straight to stderr, in the middle of progress bars.
- The plug-in classes are called directly, not ``Image.open``: it would warn above 89 megapixels and refuse
  above 179, by a global of Pillow that is not ours to change. Our own limit was checked before.
- ``ImageFile.LOAD_TRUNCATED_IMAGES`` is global too; truncated files are completed in their payload instead.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from dermseg.errors import ImageError
from dermseg.images.headers import COPY_AGAIN, Format, Header

_PLUGINS: dict[Format, tuple[str, str]] = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "HEIC": ("pi_heif.as_plugin", "HeifImageFile"),
}
_quiet_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # Not amid a picture of another thread: a forked child would wait for it, and keep what is global changed.
    os.register_at_fork(
        before=_quiet_lock.acquire,
        after_in_parent=_quiet_lock.release,
        after_in_child=_quiet_lock.release,
    )


@cache
def _plugin(kind: Format) -> type[ImageFile.ImageFile]:
    """Pillow's decoder of a format, imported when the first file of it comes: a batch rarely has them all."""
    module, name = _PLUGINS[kind]
    found: type[ImageFile.ImageFile] = getattr(import_module(module), name)
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Python warnings and without Pillow's own pixel limit.

    Both are global, so a lock lets one thread at a time in. Only TIFF and WebP need it: Pillow warns about
    odd TIFF tags, and looks at its limit again while it loads these two.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Without OpenCV's own lines on stderr, amid progress bars and logs; its level is global too."""
    logging = cv2.utils.logging
    with _quiet_lock:
        level = logging.getLogLevel()
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            logging.setLogLevel(level)


def reduction(width: int, height: int, min_side: int | None) -> int:
    """The largest of 8, 4, 2 by which both sides may be divided and still have `min_side` pixels, or 1."""
    if min_side is not None:
        for divisor in (8, 4, 2):
            if min(-(-width // divisor), -(-height // divisor)) >= min_side:
                return divisor
    return 1


def decode(header: Header, *, min_side: int | None = None, allow_truncated: bool = False) -> Image.Image:
    """Decode the first picture, as stored: not turned, not converted.

    Parameters
    ----------
    header
        What ``probe`` gave.
    min_side
        Lets a JPEG be decoded at 1/2, 1/4 or 1/8 in the frequency domain, which costs less and averages
        like an area filter; both sides keep at least this many pixels.
    allow_truncated
        Take what is there of a JPEG, PNG or BMP that is cut off; the rest is grey or black.

    Raises
    ------
    ImageError
        Truncated or damaged, or pixels are laid out in a way that is not read.
    """
    if header.truncated and not allow_truncated:
        raise ImageError(
            f"the file is truncated: {header.truncated}",
            hint=COPY_AGAIN,
        )
    try:
        with _quietly() if header.format in ("TIFF", "WEBP") else nullcontext():
            return _decode(header, min_side, allow_truncated)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"not enough memory for {header.width:,} x {header.height:,} pixels") from error
    except Exception as error:
        # On damaged data Pillow raises almost any type (OSError, SyntaxError, ValueError, TypeError,
        # KeyError, struct.error, ZeroDivisionError ...). The call decodes and does nothing else.
        unknown = "unknown pixel mode" in str(error) or "unsupported" in str(error)
        if header.format == "TIFF" and unknown and (image := _decode_unusual_tiff(header)) is not None:
            return image
        text = str(error) or type(error).__name__
        raise ImageError(
            f"the {header.format} cannot be decoded: {text}",
            hint=COPY_AGAIN,
        ) from error


def _decode(header: Header, min_side: int | None, allow_truncated: bool) -> Image.Image:
    if header.format == "DICOM":
        from dermseg.images.dicom_pixels import as_declared, decode_dicom, jpeg_header

        inner = jpeg_header(header)
        if inner is None:
            return decode_dicom(header)
        image = decode(inner, min_side=min_side, allow_truncated=allow_truncated)
        return as_declared(header, inner, image)
    signed = header.bits > 8 and not header.unsigned
    if header.swapped and header.samples == 1 and (signed or header.bits == 32):
        # Pillow exchanges the bytes of these numbers a second time
        if (unpacked := _decode_unusual_tiff(header)) is None:
            raise OSError("packed numbers in the byte order of Motorola")
        return unpacked
    image = _plugin(header.format)(io.BytesIO(header.payload))
    if image.size != (header.width, header.height):
        raise ImageError(
            f"the {header.format} gives two sizes, {header.width} x {header.height} and "
            f"{image.size[0]} x {image.size[1]}: damaged"
        )
    if header.format == "JPEG":
        divisor = reduction(header.width, header.height, min_side)
        if divisor > 1:
            image.draft(image.mode, (max(1, header.width // divisor), max(1, header.height // divisor)))
    try:
        image.load()
    except (OSError, ValueError):
        if not allow_truncated or header.format not in ("PNG", "BMP"):
            raise
        image.tile = []  # the rows decoded so far are kept, and loading is over
        image.load()
    if header.white_is_zero and image.mode.startswith("I;16"):
        # Pillow exchanges black and white up to 8 bits, and not beyond
        return Image.fromarray(np.asarray(image) ^ np.uint16((1 << header.bits) - 1))
    if header.format == "TIFF" and image.mode == "I" and header.bits == 32 and header.unsigned:
        numbers = np.asarray(image)
        if numbers.min() < 0:  # Pillow has no mode for what is beyond 2 ** 31
            return _with_values(numbers.view(np.uint32))
    return image


def _decode_unusual_tiff(header: Header) -> Image.Image | None:
    """TIFFs that Pillow has no mode for, by OpenCV: 64-bit numbers, several channels of floats or 16 bits.

    Returns a Pillow image: of one channel its values, for they may be those of a mask or label map; else of
    8 bits per channel, scaled like the single-channel modes. None where OpenCV does not read it.
    """
    if header.samples not in (1, 3, 4) or header.bits not in (16, 32, 64):
        return None
    try:
        with _silent_opencv():
            array = cv2.imdecode(np.frombuffer(header.payload, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if array is None or array.shape[:2] != (header.height, header.width):
        return None
    if array.ndim == 2 and not header.white_is_zero:
        if array.dtype == np.int32 and header.unsigned:  # OpenCV before 5 has no type for these
            array = array.view(np.uint32)
        return _with_values(array)
    scaled = scale_to_8_bits(array if array.ndim == 2 else array[..., 2::-1])
    if header.white_is_zero:
        scaled = 255 - scaled
    return Image.fromarray(np.ascontiguousarray(scaled))


def _with_values(array: npt.NDArray[Any]) -> Image.Image:
    """Grey of the values themselves: as whole numbers where Pillow has them, else as floats."""
    if array.dtype.kind in "iu" and array.min() >= -(2**31) and array.max() < 2**31:
        return Image.fromarray(array.astype(np.int32))
    with np.errstate(all="ignore"):  # damaged floats, as below
        return Image.fromarray(array.astype(np.float32))


def value_range(low: float, high: float, *, integer: bool) -> tuple[float, float]:
    """The values that become 0 and 255, from the smallest and largest value in an image.

    Floats within 0..1 and 0..255 and integers within 16 bits are taken to mean those ranges; anything else
    is stretched from its smallest to its largest value.
    """
    for top in (65535.0,) if integer else (1.0, 255.0):
        if low >= 0 and high <= top:
            return 0.0, top
    return low, high


def scale_to_8_bits(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale an array to uint8 by ``value_range``; what is not finite becomes 0."""
    integer = array.dtype.kind in "iu"
    with np.errstate(all="ignore"):  # damaged floats may be signalling NaN or near the largest number
        values: npt.NDArray[Any] = array.astype(np.float64)
        values = np.where(np.isfinite(values), values, 0)
        low, high = value_range(float(values.min()), float(values.max()), integer=integer)
        values = (values - low) * (255.0 / (high - low) if high > low else 0.0)
        scaled: npt.NDArray[np.uint8] = np.nan_to_num(np.clip(np.rint(values), 0, 255)).astype(np.uint8)
    return scaled
