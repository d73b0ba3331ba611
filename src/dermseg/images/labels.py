"""Label maps: a picture in which each lesion has a number of its own, and 0 is outside.

``dermseg segment --lesions all`` writes them. A picture of a few small numbers cannot be told from a dark
photograph or a probability map by its content alone, so it is the name that says what it is.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from dermseg.errors import ImageError, MaskError
from dermseg.images.convert import orient
from dermseg.images.decode import decode
from dermseg.images.load import open_header
from dermseg.images.sources import ImageSource, as_source

NAME_END = "_labels"
MAX_LABEL = 255


def is_label_map(source: ImageSource) -> bool:
    """Whether a file is a label map by its name, ``..._labels.png``."""
    return PurePosixPath(source.name).stem.lower().endswith(NAME_END)


def load_labels(source: ImageSource | Path | str) -> npt.NDArray[np.uint8]:
    """Load a label map, ``uint8 (H, W)``; of a palette image it is the numbers that count, not the colours.

    Raises
    ------
    MaskError
        Not whole numbers from 0 to 255 in one channel.
    ImageError
        The file cannot be read.
    """
    found = as_source(source)
    try:
        header = open_header(found)
        image = decode(header)
        values = np.asarray(image)
        if header.format == "JPEG" or values.ndim != 2 or values.dtype.kind not in "bui":
            kind = "JPEG" if header.format == "JPEG" else image.mode
            raise MaskError(
                f"is not a label map: {kind}", hint="one channel of whole numbers, as PNG or TIFF"
            )
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > MAX_LABEL:
            raise MaskError(f"is not a label map: it has values from {low} to {high}", hint="0 to 255")
        return orient(values.astype(np.uint8), header.orientation)
    except (ImageError, MaskError) as error:
        if error.file is not None:
            raise
        raise type(error)(error.message, file=found.label, hint=error.hint) from error
