"""Outer and inner lines with a promise: conformal risk control (Angelopoulos et al. 2022, arXiv:2208.02814).

A family of nested regions grows with one number, lambda. On images with a reference, ``risk_control`` finds
the smallest lambda at which the mean loss is controlled: for a new image that is exchangeable with these,
the *expected* loss is at most alpha. It is a promise about the mean over images, not about each one.

- Outer line: the loss is the share of the lesion that lies outside it. It falls as the region grows.
- Inner line: the loss is the share of the region inside it that is not lesion. That need not fall as the
  region shrinks, so each image's loss is replaced by the largest that it takes from there on; the promise
  then holds for the loss itself too. A region that has vanished has loss 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ALPHAS: tuple[float, ...] = tuple(round(0.01 * i, 2) for i in range(1, 31))


def outer_losses(distance: Floats, lesion: NDArray[np.bool_], lambdas: Floats) -> Floats:
    """Share of the lesion beyond each lambda: ``float64 (L,)``; 0 where there is no lesion.

    Parameters
    ----------
    distance
        ``(h, w)``: the outer region at lambda is where this is at most lambda; ``inf`` is never in it.
    lesion
        ``bool (h, w)``, the reference.
    lambdas
        Rising, ``(L,)``.
    """
    values = np.sort(distance[lesion], axis=None)
    if not values.size:
        return np.zeros(len(lambdas))
    return 1.0 - np.searchsorted(values, lambdas, side="right") / values.size


def inner_losses(distance: Floats, lesion: NDArray[np.bool_], lambdas: Floats) -> Floats:
    """Share of the inner region that is not lesion, made monotone: ``float64 (L,)``.

    Parameters
    ----------
    distance
        ``(h, w)``: the inner region at lambda is where this is at most -lambda.
    """
    plain = inner_shares(distance, lesion, lambdas)
    monotone: Floats = np.maximum.accumulate(plain[::-1])[::-1]
    return monotone


def inner_shares(distance: Floats, lesion: NDArray[np.bool_], lambdas: Floats) -> Floats:
    """As ``inner_losses``, before it is made monotone."""
    candidates = distance <= -lambdas[0]
    values, wrong = distance[candidates], ~lesion[candidates]
    order = np.argsort(values, kind="stable")
    sizes = np.searchsorted(values[order], -lambdas, side="right")
    mistakes = np.concatenate([[0], np.cumsum(wrong[order])])
    shares: Floats = mistakes[sizes] / np.maximum(sizes, 1)
    return shares


def risk_control(losses: Floats, alphas: Sequence[float] = ALPHAS) -> list[int | None]:
    """For each alpha the index of the smallest lambda whose risk is controlled, or None where none is.

    Parameters
    ----------
    losses
        ``(n, L)`` in [0, 1], not rising along L.

    Notes
    -----
    Controlled means ``(sum of losses + 1) / (n + 1) <= alpha``: the new image may have the largest loss.
    """
    bound = (losses.sum(axis=0) + 1.0) / (len(losses) + 1.0)
    found: list[int | None] = []
    for alpha in alphas:
        below = np.flatnonzero(bound <= alpha)
        found.append(int(below[0]) if below.size else None)
    return found
