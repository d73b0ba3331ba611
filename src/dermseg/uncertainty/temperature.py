"""Temperature scaling: one number that makes probabilities mean what they say (Guo 2017, arXiv:1706.04599).

``p = sigmoid(logit / T)``. The order of pixels, and with a threshold that moves along also the outline,
stays what it was. T minimises the negative log likelihood of pixels of images that the network was not
trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DataError

PIXELS_PER_IMAGE = 4096
_LOW, _HIGH = math.log(0.05), math.log(20.0)
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(
    logits: Sequence[NDArray[np.floating]],
    lesions: Sequence[NDArray[np.bool_]],
    *,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> float:
    """The temperature that minimises the mean negative log likelihood.

    Parameters
    ----------
    logits, lesions
        For each image the logits at temperature 1 of the pixels that count, and whether they are lesion: two
        arrays of one shape. ``PIXELS_PER_IMAGE`` of them are drawn (with replacement), so that each image
        weighs the same.
    weights
        Of the images, where they are not to weigh the same.

    Raises
    ------
    DataError
        No images, or only one class in all of them.
    """
    if not logits:
        raise DataError("a temperature needs at least one image")
    rng = np.random.default_rng(seed)
    values, truths = [], []
    for image, lesion in zip(logits, lesions, strict=True):
        drawn = rng.integers(0, image.size, PIXELS_PER_IMAGE)
        values.append(np.asarray(image, np.float64).ravel()[drawn])
        truths.append(lesion.ravel()[drawn])
    z, y = np.concatenate(values), np.concatenate(truths)
    if y.all() or not y.any():
        raise DataError("a temperature needs pixels of lesion and of skin")
    # The likelihood is unimodal in log T (it is convex in 1 / T), so a golden section finds the minimum.
    low, high = _LOW, _HIGH
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    signed = np.where(y, z, -z).reshape(len(values), PIXELS_PER_IMAGE)

    def loss(log_temperature: float) -> float:
        of_image = np.logaddexp(0.0, -signed / math.exp(log_temperature)).mean(axis=1)
        return float(np.average(of_image, weights=weights))

    at_a, at_b = loss(a), loss(b)
    while high - low > 1e-3:
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = loss(b)
    return math.exp((low + high) / 2)


def move_threshold(threshold: float, before: float, after: float) -> float:
    """The threshold that cuts the same logit at another temperature."""
    logit = math.log(threshold / (1 - threshold)) * before
    return 1 / (1 + math.exp(-logit / after))
