"""Whether probabilities mean what they say: reliability, expected calibration error and Brier score.

Decisions
- The probability is the network's, before post-processing, at the reference's size: what users get as
  ``Result.probability``. Pixels are sorted by their probability of lesion into 15 bins of equal width.
- *Band* figures look only at pixels near the reference's boundary. Most pixels of a photograph are easily
  right, and a figure over all of them says little about the ones that decide the outline.
- An image's own error is never negative and does not vanish for a perfect model, because few lesions fill few
  bins. The *pooled* error of all images' pixels together is the calibration of the model; each image weighs
  the same there, whatever its size.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.errors import MaskError
from dermseg.evaluation.boundary import boundary_width
from dermseg.evaluation.intervals import bca_interval, cluster_sums, has_bootstrap

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

BINS = 15
"""Number of bins of equal width over [0, 1] (Guo et al. 2017)."""

_BLOCK = 1 << 18  # pixels looked at together: floats of all pixels of a large photograph fill the memory

CALIBRATION_METRICS = ("ece", "brier", "ece_band", "brier_band")
"""What is computed per image from the probability map, by the names in tables and JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Pixels sorted into bins by their probability of lesion.

    Attributes
    ----------
    share
        float64 ``(15,)``: share of the pixels in each bin; sums to 1.
    probability, lesion
        float64 ``(15,)``: sum of the probabilities, and number of lesion pixels, each over all pixels.
    brier
        Mean squared difference of probability and truth (Brier 1950).
    """

    share: Floats
    probability: Floats
    lesion: Floats
    brier: float

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1] (Guo et al. 2017, arXiv 1706.04599).

        Mean over pixels of the gap between a bin's mean probability and its share of lesion.
        """
        return float(np.abs(self.probability - self.lesion).sum())

    def to_dict(self) -> dict[str, object]:
        """The curve as lists; None where a bin has no pixel."""

        def per_bin(sums: Floats) -> list[float | None]:
            return [float(s / n) if n > 0 else None for s, n in zip(sums, self.share, strict=True)]

        return {
            "ece": self.ece,
            "brier": self.brier,
            "share": [float(n) for n in self.share],
            "probability": per_bin(self.probability),
            "lesion": per_bin(self.lesion),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The reliability of one probability map: all pixels, and the band (None without a boundary)."""

    everywhere: Reliability
    band: Reliability | None

    @property
    def metrics(self) -> dict[str, float | None]:
        """The figures of `CALIBRATION_METRICS`."""
        return {
            "ece": self.everywhere.ece,
            "brier": self.everywhere.brier,
            "ece_band": None if self.band is None else self.band.ece,
            "brier_band": None if self.band is None else self.band.brier,
        }


def calibrate(probability: NDArray[np.float32], reference: Mask) -> Calibration:
    """Compare a probability map with the reference.

    Parameters
    ----------
    probability
        float32 ``(H, W)`` in [0, 1].
    reference
        bool ``(H, W)`` of the same shape.

    Raises
    ------
    MaskError
        The shapes differ, or there are no pixels.
    """
    if probability.shape != reference.shape or reference.size == 0:
        raise MaskError(f"the probability map is {probability.shape}, the reference {reference.shape}")
    band = boundary_band(reference)
    near = _reliability(probability[band], reference[band]) if band.any() else None
    return Calibration(_reliability(probability.ravel(), reference.ravel()), near)


def boundary_band(reference: Mask) -> Mask:
    """Pixels close to where lesion meets skin, bool ``(H, W)``; none if there is no such place.

    As deep on either side as the rim of the boundary IoU (2 % of the diagonal, in steps of a 3 x 3 square).
    The frame of the image is no boundary: nobody says what lies beyond it.
    """
    width = boundary_width(reference.shape)
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    grey = np.ascontiguousarray(reference).view(np.uint8)
    # OpenCV's default border neither grows nor shrinks a mask.
    band: Mask = np.asarray(cv2.dilate(grey, square)) != np.asarray(cv2.erode(grey, square))
    return band


def pool(parts: Sequence[Reliability]) -> Reliability:
    """One reliability of several images, each weighing the same."""
    return Reliability(
        np.mean([part.share for part in parts], axis=0),
        np.mean([part.probability for part in parts], axis=0),
        np.mean([part.lesion for part in parts], axis=0),
        float(np.mean([part.brier for part in parts])),
    )


def pooled_figures(parts: Sequence[Reliability], clusters: Sequence[Hashable]) -> dict[str, object]:
    """The pooled curve as lists, with the BCa interval of its calibration error over clusters.

    Parameters
    ----------
    parts
        One reliability per image, at least one.
    clusters
        Which patient or lesion each belongs to.
    """
    gaps = np.stack([part.probability - part.lesion for part in parts])
    columns = [cluster_sums(gap, clusters) for gap in np.ascontiguousarray(gaps.T)]
    sums, sizes = np.stack([total for total, _ in columns], axis=1), columns[0][1]

    def error(drawn: NDArray[np.intp]) -> Floats:
        totals = np.abs(sums[drawn].sum(axis=-2)).sum(axis=-1)
        return np.asarray(totals / sizes[drawn].sum(axis=-1), np.float64)

    interval = bca_interval(error, sizes.size, width=BINS) if has_bootstrap() else None
    ends = None if interval is None else list(interval)
    return {"n": len(parts), **pool(parts).to_dict(), "ece_bca95": ends}


def _reliability(probability: NDArray[np.float32], lesion: Mask) -> Reliability:
    """Of pixels in a row, ``(n,)`` each."""
    n, sums, squares = probability.size, np.zeros((3, BINS)), 0.0
    for start in range(0, n, _BLOCK):
        p, truth = probability[start : start + _BLOCK], lesion[start : start + _BLOCK]
        bins = np.minimum((p * np.float32(BINS)).astype(np.intp), BINS - 1)
        sums[0] += np.bincount(bins, minlength=BINS)
        sums[1] += np.bincount(bins, weights=p, minlength=BINS)
        sums[2] += np.bincount(bins[truth], minlength=BINS)
        difference = p.astype(np.float64) - truth
        squares += float(np.dot(difference, difference))
    share, total, hits = sums / n
    return Reliability(share, total, hits, squares / n)
