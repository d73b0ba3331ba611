"""Counts of pixels: the one thing every overlap metric is computed from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import MaskError


@dataclass(frozen=True, slots=True)
class Counts:
    """How two masks of one image agree, in pixels; lesion is the positive class.

    Python integers, so that sums over any number of images never overflow.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def total(self) -> int:
        """Number of pixels."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def predicted(self) -> int:
        """Pixels the prediction calls lesion."""
        return self.tp + self.fp

    @property
    def reference(self) -> int:
        """Pixels the reference calls lesion."""
        return self.tp + self.fn

    def inverted(self) -> Counts:
        """The counts with skin (background) as the positive class."""
        return Counts(self.tn, self.fn, self.fp, self.tp)


def count_pixels(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Counts:
    """Count agreeing and disagreeing pixels of two masks.

    Parameters
    ----------
    prediction, reference
        Masks, bool ``(H, W)``, of the same shape and at least one pixel.

    Raises
    ------
    MaskError
        A mask is not bool and two-dimensional, has no pixels, or the shapes differ.
    """
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise MaskError(f"the {name} is {mask.dtype} {mask.shape}, not a bool (H, W) mask")
    if prediction.shape != reference.shape:
        raise MaskError(
            f"the prediction is {prediction.shape[1]}x{prediction.shape[0]} pixels, "
            f"the reference {reference.shape[1]}x{reference.shape[0]}",
            hint="give predictions at the size of their references",
        )
    if reference.size == 0:
        raise MaskError("the masks have no pixels")
    tp = int(np.count_nonzero(prediction & reference))
    predicted = int(np.count_nonzero(prediction))
    referenced = int(np.count_nonzero(reference))
    fp, fn = predicted - tp, referenced - tp
    return Counts(tp, fp, fn, reference.size - tp - fp - fn)
