"""The first picture of a DICOM file, as a Pillow image of 8 bits per channel.

Decisions
---------
- JPEG frames go the way of every other JPEG (``probe_jpeg``, Pillow): the same checks, and decoding at a
  reduced scale. RGB that is declared by the DICOM header alone is told to the decoder by an Adobe marker;
  a JFIF or Adobe marker inside the frame goes before the header, as the encoder wrote it.
- Everything else is decoded by pydicom (RLE, native, JPEG 2000 by OpenJPEG, JPEG-LS by CharLS), after the
  sizes in the code stream were compared with those in the header: decoders trust the former.
- Grey values go through the modality LUT (or rescale), then through the file's first VOI LUT or window, each
  over its own range (PS3.3 C.11.1, C.11.2). Without those, and in colour, it is the whole range of the stored
  bits. JPEG frames, which have 8 bits, are taken as they are.
- JPEG Lossless (processes 14) is read by Pillow where its libjpeg can, up to 8 bits. It exchanges no colours
  there, so the components are taken as they are and turned into RGB here, as the DICOM header says. The GPL
  decoder for the rest is not used.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dermseg.errors import ImageError
from dermseg.images.dicom import photometric, read_dataset, transfer_syntax
from dermseg.images.headers import Header
from dermseg.images.jpeg import probe_jpeg

if TYPE_CHECKING:
    from pydicom import Dataset

# Transfer syntaxes of each coding (PS3.6, table A-1).
JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
_JPEG_LOSSLESS = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (57, 70))
JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_PLAIN = frozenset(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"))  # little endian, not compressed
_RLE = "1.2.840.10008.1.2.5"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_COLOURS = frozenset(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"))
# Those of earlier editions (PS3.3 C.7.6.3.1.2), and what programs write: named where they are refused. Any
# other value of a damaged header may be anything, and refusals are logged.
_NOT_READ = frozenset(("HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420"))
# Adobe marker with transform 0: three channels are RGB (Adobe Technical Note 5116, 1992).
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def jpeg_header(header: Header) -> Header | None:
    """The header of the JPEG inside, to be decoded like a file of its own; None where it is no JPEG.

    Raises
    ------
    ImageError
        The frame is missing or damaged, or of another size than the DICOM header says.
    """
    dataset = read_dataset(header.payload)
    if transfer_syntax(dataset) not in JPEG or photometric(dataset) == "PALETTE COLOR":
        return None
    inner = probe_jpeg(_first_frame(dataset, header.frames))
    if (inner.width, inner.height) != (header.width, header.height):
        raise _two_sizes(header, inner.width, inner.height)
    payload = inner.payload
    if inner.samples == 3 and transfer_syntax(dataset) in _JPEG_LOSSLESS:
        return dataclasses.replace(inner, payload=_without_conversion(payload))
    marked = b"JFIF\0" in payload[:12] or b"Adobe" in payload[:64]
    if inner.samples == 3 and photometric(dataset) == "RGB" and not marked:
        payload = payload[:2] + _ADOBE_RGB + payload[2:]
    return dataclasses.replace(inner, payload=payload)


def _without_conversion(payload: bytes) -> bytes:
    """A JPEG that tells its decoder nothing but that its components are RGB, whatever they are."""
    kept, position = [payload[:2], _ADOBE_RGB], 2
    while payload[position + 1] != 0xDA:  # the first scan; up to there `probe_jpeg` has left whole segments
        end = position + 2 + int.from_bytes(payload[position + 2 : position + 4], "big")
        if payload[position + 1] not in (0xE0, 0xEE):  # JFIF and Adobe
            kept.append(payload[position:end])
        position = end
    return b"".join((*kept, payload[position:]))


def decode_dicom(header: Header) -> Image.Image:
    """Decode the first picture; of a segmentation, all its frames laid over each other.

    Returns
    -------
    Pillow image
        ``L`` or ``RGB``.

    Raises
    ------
    ImageError
        Damaged, an encoding without a decoder, or colours that are not read.
    """
    dataset = read_dataset(header.payload)
    _check_stream(dataset, header)
    if header.samples > 1 and "PlanarConfiguration" not in dataset:
        dataset.PlanarConfiguration = 0  # required, but left out by some cameras; 0 is what they mean
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    colours = photometric(dataset)
    if header.mask_only:
        return _segmentation(dataset, header)
    if colours and colours not in _COLOURS and not colours.startswith("MONOCHROME"):
        raise ImageError(
            f"the colour space {colours if colours in _NOT_READ else 'of this file'} is not read"
        )
    dataset.PhotometricInterpretation = colours or None  # pydicom knows no small letters
    values: npt.NDArray[Any] = pixel_array(dataset, index=0)
    if values.shape[:2] != (header.height, header.width):
        raise _two_sizes(header, values.shape[1], values.shape[0])
    bits = header.bits
    if colours == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)[..., :3]
        bits = 8 * values.dtype.itemsize
        if bits == 16 and not (values & 0xFF).any():  # 8-bit entries in the upper half of 16
            values = values >> 8
            bits = 8
    low, high = _stored_range(bits, signed=bool(dataset.get("PixelRepresentation")))
    if colours.startswith("MONOCHROME"):
        values, low, high = _presented(values, low, high, dataset)
    elif values.ndim != 3 or values.shape[2] != 3:
        raise ImageError("the colour space of this file is not read: it has not three channels")
    grey = _to_bytes(values, low, high)
    return Image.fromarray(255 - grey if colours == "MONOCHROME1" else grey)


def as_declared(header: Header, inner: Header, image: Image.Image) -> Image.Image:
    """The decoded JPEG as the DICOM header says that it is meant.

    MONOCHROME1 with light and dark exchanged; lossless YCbCr, which is decoded as it is, as RGB.
    """
    if inner.payload.startswith(_ADOBE_RGB, 2):
        dataset = read_dataset(header.payload)
        if transfer_syntax(dataset) in _JPEG_LOSSLESS and photometric(dataset).startswith("YBR"):
            from pydicom.pixels import convert_color_space

            return Image.fromarray(convert_color_space(np.asarray(image), "YBR_FULL", "RGB"))
    if any(note.startswith("MONOCHROME1") for note in header.notes) and image.mode == "L":
        return Image.fromarray(255 - np.asarray(image))
    return image


def _stored_range(bits: int, *, signed: bool) -> tuple[float, float]:
    low = -(1 << bits - 1) if signed else 0
    return low, low + (1 << bits) - 1


def _presented(
    values: npt.NDArray[Any], low: float, high: float, dataset: Dataset
) -> tuple[npt.NDArray[Any], float, float]:
    """Grey values after modality and VOI transformation, and the range that is black to white.

    Parameters
    ----------
    values
        ``(H, W)``, stored values.
    low, high
        Their range.
    """
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if dataset.get("ModalityLUTSequence"):
        values, high = _look_up(values, low, dataset, "ModalityLUTSequence")
        low = 0
    elif slope and intercept is not None:
        slope, intercept = float(slope), float(intercept)
        values = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        low, high = sorted((low * slope + intercept, high * slope + intercept))
    if dataset.get("VOILUTSequence"):
        values, high = _look_up(values, low, dataset, "VOILUTSequence")
        low = 0
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        values, low, high = _window(values, dataset), 0, 255
    return values, low, high


def _look_up(
    values: npt.NDArray[Any], low: float, dataset: Dataset, sequence: str
) -> tuple[npt.NDArray[Any], float]:
    """Values through the table of a sequence, and the largest that its entries may be (PS3.3 C.11.1.1.1).

    Not pydicom's, which counts entries in 8 bits where they are 8 bits wide.
    """
    item = dataset[sequence].value[0]
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    if first > 0x7FFF and low < 0:  # a signed number that was read as one without a sign
        first -= 0x10000
    count = count or 0x10000  # 65,536 does not fit into its 16 bits
    data = item.LUTData
    if isinstance(data, bytes):  # one entry per word, or two where they are packed
        order = ">" if transfer_syntax(dataset) == _BIG_ENDIAN else "<"
        words = len(data) >= 2 * count
        table = np.frombuffer(data[: 2 * count], f"{order}u2" if words else np.uint8)
    else:
        table = np.asarray(data).reshape(-1)
    if table.size < count or not 0 < bits <= 16:
        raise ImageError(f"{sequence} has {table.size} entries of {bits} bits instead of {count}: damaged")
    places = np.clip(np.rint(values.astype(np.float32) - np.float32(first)), 0, count - 1)
    return table[places.astype(np.uint16)], (1 << bits) - 1


def _window(values: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    """Values through the first window of the file, to 0 to 255."""
    import pydicom
    from pydicom.pixels.processing import apply_windowing

    window = pydicom.Dataset()
    window.PhotometricInterpretation, window.PixelRepresentation, window.BitsStored = "MONOCHROME2", 0, 8
    for name in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if dataset.get(name) is not None:
            window[name] = dataset[name]
    windowed: npt.NDArray[Any] = apply_windowing(values, window, index=0)
    return windowed


def _to_bytes(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Values from `low` (black) to `high` (white) as uint8."""
    if values.dtype == np.uint8 and (low, high) == (0, 255):
        return np.ascontiguousarray(values)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)


def _segmentation(dataset: Dataset, header: Header) -> Image.Image:
    """The union of the frames of a segmentation: 0 or 255 if binary or a label map, else 0 to 255."""
    union = np.zeros((header.height, header.width), np.float64)
    for frame in _frames(dataset, header):
        np.maximum(union, frame, out=union)
    top = float(dataset.get("MaximumFractionalValue") or 1) if header.bits > 1 else 1.0
    return Image.fromarray(np.clip(np.rint(union * (255.0 / top)), 0, 255).astype(np.uint8))


def _frames(dataset: Dataset, header: Header) -> Iterator[npt.NDArray[Any]]:
    """Each frame of a segmentation, ``(H, W)``.

    Of one bit a pixel, frames follow each other without a gap (PS3.5 8.1.1) and may begin and end within a
    byte: one by one, pydicom 3.0 takes too little of those.
    """
    from pydicom.pixels.utils import iter_pixels

    if dataset.get("BitsAllocated") != 1 or transfer_syntax(dataset) not in _PLAIN:
        yield from iter_pixels(dataset)
        return
    packed, size = np.frombuffer(dataset.PixelData, np.uint8), header.height * header.width
    if 8 * packed.size < header.frames * size:
        raise ImageError(f"the DICOM file has no {header.frames} whole frames: truncated or damaged")
    for first in range(0, header.frames * size, size):
        octets = packed[first // 8 : -(-(first + size) // 8)]
        bits = np.unpackbits(octets, bitorder="little")[first % 8 : first % 8 + size]
        yield bits.reshape(header.height, header.width)


def _first_frame(dataset: Dataset, frames: int) -> bytes:
    from pydicom.encaps import get_frame

    try:
        return bytes(get_frame(dataset.PixelData, 0, number_of_frames=frames))
    except Exception as error:
        raise ImageError("the DICOM file has no whole picture: truncated or damaged") from error


def _check_stream(dataset: Dataset, header: Header) -> None:
    """Compare the sizes inside the compressed picture with the header, before a decoder believes them."""
    syntax = transfer_syntax(dataset)
    if syntax == _RLE:
        # A run of 128 equal bytes takes two bytes; more than the picture's own size cannot be needed.
        limit = 2 * header.width * header.height * header.samples * max(1, -(-header.bits // 8)) + 4096
        if len(_first_frame(dataset, header.frames)) > limit:
            raise ImageError("the RLE data are longer than the picture: damaged")
    elif syntax in JPEG_2000:
        frame = _first_frame(dataset, header.frames)
        start = frame.find(b"\xff\x4f\xff\x51")
        if start < 0 or len(frame) < start + 44:
            raise ImageError("the JPEG 2000 data have no size: damaged")
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        if (right - left, bottom - top) != (header.width, header.height):
            raise _two_sizes(header, right - left, bottom - top)
    elif syntax in JPEG_LS:
        frame = _first_frame(dataset, header.frames)
        start = frame.find(b"\xff\xf7")
        if start < 0 or len(frame) < start + 9:
            raise ImageError("the JPEG-LS data have no size: damaged")
        height, width = struct.unpack_from(">HH", frame, start + 5)
        if (width, height) != (header.width, header.height):
            raise _two_sizes(header, width, height)


def _two_sizes(header: Header, width: int, height: int) -> ImageError:
    return ImageError(
        f"the DICOM file gives two sizes, {header.width} x {header.height} in its header and "
        f"{width} x {height} in its picture: damaged"
    )
