"""What is no image, no mask, or a mask of another picture is refused with what was given and what to do.

Taken as they are, probabilities of 0.1 would be lesion, floats of 0 to 1 black, and the outline of a picture
that one program turns by its EXIF tag and another does not would lie in another place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import ImageError, MaskError

_ROUNDING = 1.5  # pixels: of a picture that was decoded reduced, and reduced again


def check_image(pixels: NDArray[np.uint8]) -> None:
    """Refuse what is not an RGB image.

    Raises
    ------
    ImageError
        Not ``uint8 (H, W, 3)`` with at least one pixel.
    """
    if not isinstance(pixels, np.ndarray):
        raise ImageError(
            f"an image is an array uint8 (H, W, 3) RGB, got {type(pixels).__name__}",
            hint=_instead_of_object(pixels),
        )
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ImageError(
            f"an image is uint8 (H, W, 3) RGB, got {pixels.dtype} {pixels.shape}", hint=_instead_of(pixels)
        )


def check_mask(mask: NDArray[np.bool_]) -> None:
    """Refuse what is not a mask.

    Raises
    ------
    MaskError
        Not ``bool (H, W)`` with at least one pixel.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2 or mask.size == 0:
        what = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise MaskError(
            f"a mask is bool (H, W), got {what}",
            hint="array >= 128 of 0 and 255, array > 0 of 0 and 1, array >= 0.5 of probabilities",
        )


def as_bytes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The mask's own memory as ``uint8`` 0/1, the form OpenCV takes.

    Raises
    ------
    MaskError
        Not ``bool (H, W)`` with at least one pixel.
    """
    check_mask(mask)
    return np.ascontiguousarray(mask).view(np.uint8)


def check_frame(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Refuse a mask that does not lie on an image of the same frame, at its size or another one.

    Raises
    ------
    MaskError
        Their sides are not in proportion.
    """
    (height, width), (rows, columns) = image.shape[:2], mask.shape
    apart = abs(width * rows - height * columns)
    turned = (width - columns) * (height - rows) < 0  # wider and lower, or narrower and higher
    if turned or apart > _ROUNDING * max(height, width, rows, columns):
        raise MaskError(
            f"a mask of {columns} x {rows} pixels does not lie on an image of {width} x {height}",
            hint="dermseg.images.load_image gives the pixels as a path is segmented, turned as the camera "
            "noted; other programs may not turn them",
        )


def _instead_of_object(given: Any) -> str:
    if hasattr(given, "convert"):  # Pillow
        if str(getattr(given, "mode", "")).startswith(("I", "F")):
            return "give the path: Pillow cuts off what is above 255 when it converts more than 8 bits"
        return "give the path, or np.asarray(image.convert('RGB')), which is not turned as the camera noted"
    if hasattr(given, "read"):
        return "give the path, or the bytes: file.read()"
    return "give an array, a path, or the bytes of a file"


def _instead_of(pixels: NDArray[Any]) -> str:
    shape, hints = pixels.shape, []
    if pixels.dtype.kind == "f":
        hints.append("(x * 255).round().astype('uint8') of floats in [0, 1]")
    elif pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:  # of either byte order
        hints.append("(x // 257).astype('uint8') of 16 bits")
    elif pixels.dtype != np.uint8:
        hints.append("x.astype('uint8') of values from 0 to 255")
    if len(shape) == 2:
        hints.append("np.stack([x] * 3, -1) of grey")
    elif len(shape) == 3 and shape[2] == 1:
        hints.append("np.repeat(x, 3, -1) of grey")
    elif len(shape) == 3 and shape[2] == 4:
        hints.append("x[..., :3] of RGBA")
    elif len(shape) == 3 and shape[0] == 3 != shape[2]:
        hints.append("np.moveaxis(x, 0, -1) of (3, H, W)")
    elif len(shape) == 4:
        hints.append("one image at a time, or segment_batch(list(x))")
    return f"convert with {', then '.join(hints)}" if hints else "convert it to (H, W, 3), one pixel at least"
