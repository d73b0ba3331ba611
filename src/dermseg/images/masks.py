"""Masks in and out: what people store as a mask, read as bool; bool written as 8-bit PNG.

Reference masks come as 0/255, 0/1, 1-bit, palette, RGB, 16-bit, and as JPEGs whose edges ring. All of these
say one thing, lesion or not; anything that does not (a photograph, a label map, a probability map) is refused
rather than guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from dermseg.errors import ImageError, MaskError
from dermseg.files import atomic_write
from dermseg.images.check import as_bytes
from dermseg.images.convert import orient
from dermseg.images.decode import decode
from dermseg.images.load import MAX_PIXELS, open_header, oriented_size
from dermseg.images.sources import ImageSource, as_source

BoolMask = npt.NDArray[np.bool_]
# Share of pixels that may lie between black and white: the ringing of a JPEG, the rim of a resized mask.
MAX_MIDTONES = 0.05
_ONE_COLOUR = 4  # grey levels that one colour spans where it was multiplied by alpha and divided again
_ON_ITS_SIDE = (
    "one of the two lies on its side; photographs are turned as their EXIF orientation says: save the mask "
    "upright, too"
)
_OTHER_SIZE = "save it at its image's size: each pixel takes the nearest value (no smoothing)"
FEW = 8  # values, as a label map has; the rim of a resized mask and the ringing of a JPEG mostly have more
MAX_LABELS = 100  # a photograph often has each of the 256 values, a label map never


@dataclass(frozen=True)
class LoadedMask:
    """A mask and remarks on how it was read.

    Attributes
    ----------
    mask
        bool (H, W), True is lesion.
    notes
        What was tolerated, in plain words.
    spacing_mm
        Millimetres between pixel centres (row, column), of a calibrated DICOM segmentation.
    """

    mask: BoolMask
    notes: tuple[str, ...] = ()
    spacing_mm: tuple[float, float] | None = None


def load_mask(source: ImageSource | Path | str | bytes, *, size: tuple[int, int] | None = None) -> BoolMask:
    """Load a mask; ``read_mask`` without the remarks.

    Parameters
    ----------
    source
        As for ``load_image``.
    size
        (height, width) that the mask must have.

    Returns
    -------
    bool (H, W)
        True is lesion.

    Raises
    ------
    MaskError
        Not binary, or another size than its image.
    ImageError
        The file cannot be read.
    """
    return read_mask(source, size=size).mask


def read_mask(source: ImageSource | Path | str | bytes, *, size: tuple[int, int] | None = None) -> LoadedMask:
    """Load a mask and say what was tolerated.

    Of two values, the higher is lesion. Of more, those from half the range up are, if nearly all lie near
    the two ends. A single value is an empty mask (0) or a full one (1, or the upper half of the range).

    Raises
    ------
    MaskError
        Not binary, or another size than its image.
    ImageError
        The file cannot be read.
    """
    label = None if isinstance(source, bytes) else as_source(source).label
    try:
        header = open_header(source, MAX_PIXELS)
        width, height = oriented_size(header)
        if size is not None and (height, width) != tuple(size):
            raise MaskError(
                f"the mask has {width} x {height} pixels, its image {size[1]} x {size[0]}",
                hint=_ON_ITS_SIDE if (width, height) == tuple(size) else _OTHER_SIZE,
            )
        mask, notes = binarize(_grey_values(decode(header)), lossy=header.format in ("JPEG", "WEBP"))
        mask = orient(mask.view(np.uint8), header.orientation).view(np.bool_)
    except (ImageError, MaskError) as error:
        if error.file is not None or label is None:
            raise
        raise type(error)(error.message, file=label, hint=error.hint) from error
    return LoadedMask(mask, notes, header.spacing_mm)


def _grey_values(image: Image.Image) -> npt.NDArray[Any]:
    """Values as stored where there is one channel, else luminance; where nothing is painted, 0.

    Of a picture that is painted in one plain colour on nothing, alpha alone says where. The colours of
    what is transparent mean nothing: some programs leave white there, others black.
    """
    if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    rgba = np.asarray((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    grey, alpha = cv2.cvtColor(rgba, cv2.COLOR_RGBA2GRAY), rgba[..., 3]
    if alpha.min() > 0 or alpha.max() == 0:  # no layer, or one that hides everything and was not meant so
        return np.asarray(grey)
    painted = grey[alpha > alpha.max() / 2]
    return np.asarray(alpha if np.ptp(painted) <= _ONE_COLOUR else np.where(alpha > 0, grey, 0))


def binarize(values: npt.NDArray[Any], *, lossy: bool = False) -> tuple[BoolMask, tuple[str, ...]]:
    """Turn stored values into lesion or not.

    Parameters
    ----------
    values
        (H, W) bool, integer or float.
    lossy
        The format changes values a little, so a narrow band of low values is an empty mask.

    Raises
    ------
    MaskError
        The values are not those of a binary mask.
    """
    if values.dtype == np.bool_:
        # Pillow stores True as 255 in images of one bit; code that looks at the bytes expects 1
        return np.asarray(values.view(np.uint8) != 0), ()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise MaskError("is not a mask: it has values that are not numbers")
    levels, counts = _levels(values)
    low, high = float(levels[0]), float(levels[-1])
    top = {1: 255.0, 2: 65535.0}.get(values.dtype.itemsize, max(high, 1.0))
    if len(levels) == 1:
        if high in (0.0, 1.0) or high >= top / 2:
            return np.full(values.shape, high > 0), ()
        raise MaskError(f"is not a mask: every pixel has the value {high:g}")
    if len(levels) == 2:
        return np.asarray(values == levels[1]), ()
    if lossy and high < top / 8:
        return np.zeros(values.shape, np.bool_), (f"values up to {high:g} taken as empty",)
    if not lossy and len(levels) <= FEW and high >= top * 7 / 8:
        # 0, 1 and 255: lesion and what does not count, as in data sets with the values of Pascal VOC
        faint = counts[(levels > low) & (levels < top / 8)].sum()
        if faint > counts[levels >= top * 7 / 8].sum():
            listed = ", ".join(f"{level:g}" for level in levels)
            raise MaskError(
                f"is not a binary mask: it has the values {listed}",
                hint="if they are classes, or one marks what does not count, save the lesion as 0 and 255",
            )
    middle = counts[(levels >= top / 8) & (levels < top * 7 / 8)].sum() / values.size
    if low < 0 or high < top * 7 / 8 or middle > MAX_MIDTONES:
        raise MaskError(
            f"is not a binary mask: {len(levels)} different values from {low:g} to {high:g}, "
            f"{middle:.1%} of the pixels between black and white",
            hint="save the lesion as 0 and 255; 'dermseg measure' takes label maps called NAME_labels"
            if low == 0 and high == len(levels) - 1 < MAX_LABELS
            else "a mask has two values, such as 0 and 255",
        )
    note = f"{len(levels)} different values; those from {np.ceil(top / 2):g} up taken as lesion"
    return np.asarray(values >= top / 2), (note,)


def is_frame(mask: BoolMask) -> bool:
    """Whether all of the edge is lesion and not all of the image: where many are so, the lesion is the rest.

    ImageJ, say, writes what was drawn in black.
    """
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return all(bool(edge.all()) for edge in edges) and not mask.all()


def _levels(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Distinct values and how often each occurs; ``np.unique`` sorts, which is slow on megapixels."""
    if values.dtype == np.uint8:
        counts = cv2.calcHist([values], [0], None, [256], [0, 256]).ravel()
    elif values.dtype.kind == "u" and values.dtype.itemsize == 2:
        counts = np.bincount(values.ravel(), minlength=1 << 16)
    else:
        return np.unique(values, return_counts=True)
    levels = np.flatnonzero(counts)
    return levels, counts[levels]


def encode_mask(mask: BoolMask) -> bytes:
    """Encode a mask as 8-bit grey PNG with the values 0 and 255.

    Run lengths without a filter fit masks best: on native masks 4 ms and 5 kB each, against 13 ms and 18 kB
    with general settings.

    Raises
    ------
    MaskError
        Not ``bool (H, W)``: of probabilities every one above 0 would be lesion.
    """
    grey = as_bytes(mask) * np.uint8(255)
    options = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    return encode(".png", grey, [*options, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE])


def encode(extension: str, array: npt.NDArray[Any], options: list[int]) -> bytes:
    """Encode an array with OpenCV.

    Raises
    ------
    ImageError
        The encoder refuses the array.
    """
    try:
        done, data = cv2.imencode(extension, array, options)
    except cv2.error as error:
        raise ImageError(f"an array of shape {array.shape} cannot be written as {extension}") from error
    if not done:
        raise ImageError(f"an array of shape {array.shape} cannot be written as {extension}")
    return data.tobytes()


def save_mask(mask: BoolMask, path: str | Path) -> None:
    """Write a mask as PNG, whole or not at all.

    Raises
    ------
    MaskError
        Not ``bool (H, W)``.
    DermsegError
        The file cannot be written.
    """
    atomic_write(Path(path), encode_mask(mask))
