"""What the model found in one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dermseg.inference import postprocess
from dermseg.inference.postprocess import Floats
from dermseg.measure.basics import Box
from dermseg.quality.verdict import Verdict
from dermseg.uncertainty.predicted_dice import Judgement


@dataclass(frozen=True, eq=False)
class Result:
    """What the model found in one image. Arrays have the size of the input file, after EXIF orientation.

    Parameters
    ----------
    mask
        ``bool (H, W)``; all False where nothing was found.
    status
        ``ok`` or ``no_lesion``.
    confidence
        In [0, 1]: the Dice that is expected of the mask (``judgement.predicted_dice``). For a bundle without
        a fitted estimate, ``postprocess.boundary_confidence``. 0 where nothing was found.
    area_px, area_fraction
        Number of mask pixels, and their share of the image.
    width, height
        Size of the image in pixels.
    bbox, centroid
        ``(x, y, width, height)`` and ``(x, y)`` in pixels; the centre of the top left pixel is (0, 0).
        None where nothing was found.
    components_removed
        Components that the network found and post-processing dropped.
    touches_border
        Whether the mask reaches the edge of the image.
    labels
        With ``lesions="all"``: ``uint8 (H, W)``, 0 outside, 1 the largest lesion, 2 the next, at most 255.
    threshold
        The probability threshold that was used.
    network_probability
        ``float32 (h, w)``: what ``probability`` is interpolated from.
    judgement
        Predicted Dice with its interval, and whether a person should look at the outline; None for a bundle
        that nothing was fitted for.
    verdict
        Whether image and outline can be used: level ``accept``, ``review`` or ``reject``, and the findings
        behind it with reason and remedy; None for a bundle without a gate.
    """

    mask: NDArray[np.bool_]
    status: Literal["ok", "no_lesion"]
    confidence: float
    area_px: int
    area_fraction: float
    width: int
    height: int
    bbox: Box | None
    centroid: tuple[float, float] | None
    components_removed: int
    touches_border: bool
    labels: NDArray[np.uint8] | None
    threshold: float
    network_probability: Floats = field(repr=False)
    judgement: Judgement | None = None
    verdict: Verdict | None = None

    @cached_property
    def probability(self) -> Floats:
        """``float32 (H, W)`` in [0, 1] before post-processing; computed when it is first asked for."""
        return postprocess.upsample(self.network_probability, (self.height, self.width))
