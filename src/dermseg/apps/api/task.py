"""What a request brings to the engine, and what becomes of it there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dermseg.images.load import ImageInfo
from dermseg.inference.postprocess import Floats, Lesions
from dermseg.inference.predictor import Model
from dermseg.inference.result import Result
from dermseg.inference.stages import BIG_PIXELS


@dataclass(frozen=True, slots=True)
class Ask:
    """How an image is to be segmented.

    Parameters
    ----------
    model
        Name of one of the server's models.
    threshold, lesions, tta
        As for ``Model.segment``.
    picture
        Keep the pixels that an overlay is drawn on.
    """

    model: str
    threshold: float | None = None
    lesions: Lesions = "largest"
    tta: bool = False
    picture: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """One image's result with what an answer is made of.

    ``data`` is the file as it came; ``mask_png`` what ``dermseg segment`` writes; ``picture`` the pixels for
    an overlay, at most 1800 on a side; ``seconds`` the time per stage.
    """

    data: bytes
    ask: Ask
    model: Model
    result: Result
    info: ImageInfo
    mask_png: bytes
    input_sha256: str
    output_sha256: str
    picture: NDArray[np.uint8] | None
    seconds: dict[str, float]


Render = Callable[[Segmented], bytes]
Outcome = tuple[Segmented, bytes] | BaseException


@dataclass(slots=True, eq=False)
class Task:
    """An image on its way from the request to its answer, which ``tell`` is given."""

    data: bytes
    ask: Ask
    render: Render
    tell: Callable[[Outcome], None]
    created: float = field(default_factory=time.perf_counter)
    cancelled: bool = False
    input: Floats | None = None
    gate_view: NDArray[np.uint8] | None = None
    info: ImageInfo | None = None
    picture: NDArray[np.uint8] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def big(self) -> bool:
        """See `is_big`; known once it is decoded."""
        return self.info is not None and is_big(self.info.width, self.info.height)


def is_big(width: int, height: int) -> bool:
    """Whether a picture is worked on one at a time, as in a batch (``inference.stages``)."""
    return width * height > BIG_PIXELS
