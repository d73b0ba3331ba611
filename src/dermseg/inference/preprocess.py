"""From RGB pixels to the network's input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dermseg.images.check import check_image
from dermseg.images.filters import apply_filters
from dermseg.images.resize import resize_image
from dermseg.inference.card import Preprocessing


def to_input(
    pixels: NDArray[np.uint8], preprocessing: Preprocessing, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The network's view of an image.

    The image is resized as ``uint8``, so floats are made only for the few pixels that the network sees.

    Parameters
    ----------
    pixels
        ``uint8 (H, W, 3)`` RGB of any size from one pixel up.
    preprocessing
        Size, filters and normalisation, from the model's card.
    out
        ``float32 (3, height, width)`` to fill, such as one slot of a batch.

    Returns
    -------
    ndarray
        ``float32 (3, height, width)``, C-contiguous.

    Raises
    ------
    ImageError
        Not ``uint8 (H, W, 3)`` with at least one pixel.
    """
    check_image(pixels)
    p = preprocessing
    small = apply_filters(resize_image(pixels, p.height, p.width, p.resize), p.filters)
    if out is None:
        out = np.empty((3, p.height, p.width), np.float32)
    for c, (mean, std) in enumerate(zip(p.mean, p.std, strict=True)):
        # (v / 255 - mean) / std as one multiplication and one addition, straight into the batch
        np.multiply(small[..., c], np.float32(1.0 / (255.0 * std)), out=out[c], dtype=np.float32)
        out[c] -= np.float32(mean / std)
    return out
