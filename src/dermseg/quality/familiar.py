"""How far an image is from those a network knows, by what its encoder sees in it.

The encoder's maps are averaged over the image; a Gaussian over these averages is fitted to known images and
the squared Mahalanobis distance, divided by the number of features, is the image's strangeness: about 1 for
an image like those of the fit (Lee et al. 2018, arXiv:1807.03888). The covariance is kept as its leading
directions and one variance for all others (probabilistic PCA, Tipping and Bishop 1999,
doi:10.1111/1467-9868.00196), which is also what makes it invertible.
"""

from __future__ import annotations

import base64
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from dermseg.schema import Stored

Floats = NDArray[np.float32]


def _decodable(text: str) -> str:
    if len(base64.b64decode(text, validate=True)) % 4:
        raise ValueError("not a whole number of float32 values")
    return text


# little-endian float32 in base64: a third of the size of decimal digits, and exact
Packed = Annotated[str, AfterValidator(_decodable)]


def pack(values: NDArray[np.floating]) -> str:
    """An array as text."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def unpack(text: str) -> Floats:
    """The array ``float32 (n,)`` that was packed."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


class Familiar(Stored):
    """A Gaussian over the pooled features of known images.

    Parameters
    ----------
    size
        Number of features, D.
    mean, scale
        ``(D,)``, what is subtracted from the features, and what they are then divided by.
    directions
        ``(K, D)``, orthonormal rows.
    variances
        ``(K,)``, of the scaled features along the directions.
    rest
        Variance along each of the other directions.
    """

    size: int = Field(ge=1)
    mean: Packed
    scale: Packed
    directions: Packed
    variances: Packed
    rest: float = Field(gt=0)

    @model_validator(mode="after")
    def _shapes_fit(self) -> Familiar:
        mean, scale, variances = unpack(self.mean), unpack(self.scale), unpack(self.variances)
        sizes = (mean.size, scale.size, unpack(self.directions).size)
        if sizes != (self.size, self.size, len(variances) * self.size):
            raise ValueError(f"mean, scale and directions are not those of {self.size} features")
        if not (np.isfinite(mean).all() and (scale > 0).all() and (variances > 0).all()):
            raise ValueError("the mean must be finite, scale and variances above 0")
        return self

    @cached_property
    def _parts(self) -> tuple[Floats, Floats, Floats, Floats]:
        variances = unpack(self.variances)
        directions = unpack(self.directions).reshape(len(variances), self.size)
        # |x|^2 / rest counts every direction; the leading ones are put right by the difference
        excess = (1 / variances - 1 / self.rest).astype(np.float32)
        return unpack(self.mean), unpack(self.scale), directions, excess

    def strangeness(self, features: Floats) -> Floats:
        """``float32 (N,)`` for ``float32 (N, D)``: about 1 for known images, larger the stranger."""
        mean, scale, directions, weights = self._parts
        centred = (np.asarray(features, np.float32) - mean) / scale
        squares = (centred @ directions.T) ** 2
        found: Floats = ((centred**2).sum(axis=1) / np.float32(self.rest) + squares @ weights) / self.size
        return found


def fit_familiar(
    features: NDArray[np.floating], weights: NDArray[np.floating] | None = None, *, keep: int = 64
) -> Familiar:
    """Fit the Gaussian to known images.

    Parameters
    ----------
    features
        ``(N, D)``.
    weights
        ``(N,)``; None counts all alike.
    keep
        Number of leading directions, at most D - 1 and N - 1.
    """
    x = np.asarray(features, np.float64)
    count, size = x.shape
    share = (
        np.full(count, 1 / count) if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
    )
    mean = share @ x
    spread = np.sqrt(share @ (x - mean) ** 2)
    scale = np.where(spread > 1e-6, spread, 1.0)
    z = (x - mean) / scale
    values, vectors = np.linalg.eigh((z * share[:, None]).T @ z)
    keep = min(keep, size - 1, count - 1)
    rest = max(1e-3, float(np.clip(values[: size - keep], 0, None).mean()))
    return Familiar(
        size=size,
        mean=pack(mean),
        scale=pack(scale),
        directions=pack(vectors[:, ::-1][:, :keep].T),
        variances=pack(np.maximum(values[::-1][:keep], rest)),
        rest=rest,
    )
