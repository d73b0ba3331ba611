"""One image: seen once by the network, outlined again and again.

``look_at`` decodes the file and runs the network. ``outline`` turns what it saw into a result for any
threshold; only post-processing is done again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dermseg.images import load_image
from dermseg.images.load import ImageInfo
from dermseg.images.resize import shrink
from dermseg.inference.postprocess import Floats, Lesions
from dermseg.inference.predictor import Model
from dermseg.inference.result import Result

Pixels = NDArray[np.uint8]
VIEW_SIDE = 1200  # pictures on the page are at most this wide and high


@dataclass(frozen=True, eq=False)
class Look:
    """What is kept of an image between two strokes of a slider.

    Attributes
    ----------
    name
        The file's name.
    picture
        ``uint8 (h, w, 3)``, for the page: at most ``VIEW_SIDE`` a side.
    info
        About the file, with its full size.
    network_input, probability
        ``float32 (3, H, W)`` and ``float32 (h, w)``.
    gate_view, features
        What the gate judges by; None where the bundle has none.
    """

    name: str
    picture: Pixels = field(repr=False)
    info: ImageInfo
    network_input: Floats = field(repr=False)
    probability: Floats = field(repr=False)
    gate_view: Pixels | None = field(repr=False)
    features: Floats | None = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the file's image."""
        return self.info.height, self.info.width

    @property
    def mask_name(self) -> str:
        """The name under which ``dermseg segment`` writes the mask."""
        return f"{PurePosixPath(self.name).stem}_segmentation.png"


def look_at(model: Model, name: str, data: bytes, max_pixels: int) -> Look:
    """Decode a file as ``dermseg segment`` does and run the network on it.

    Raises
    ------
    ImageError
        The file cannot be read or is too large.
    """
    loaded = load_image(data, min_side=model.min_side, max_pixels=max_pixels)
    network_input = model.prepare(loaded.pixels)
    (probability,), features = model.look(network_input[None])
    view = loaded.pixels
    if loaded.scale < 1 and max(view.shape[:2]) < VIEW_SIDE:  # the network needs less than people do
        view = load_image(data, min_side=VIEW_SIDE * 2 // 3, max_pixels=max_pixels).pixels
    return Look(
        name,
        np.ascontiguousarray(shrink(view, VIEW_SIDE)),
        loaded.info,
        network_input,
        probability,
        model.gate_view(loaded.pixels),
        None if features is None else features[0],
    )


def outline(
    model: Model, look: Look, *, threshold: float | None = None, lesions: Lesions | None = None
) -> Result:
    """The result at a threshold, with the gate's verdict; runs no network."""
    result = model.finish(look.probability, look.size, threshold=threshold, lesions=lesions)
    return model.judge(result, look.gate_view, look.features)
