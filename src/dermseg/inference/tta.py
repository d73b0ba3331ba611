"""Test-time augmentation: the network sees the image from several sides, and the answers are averaged.

Probabilities are averaged, not logits: one view with an extreme logit then cannot outvote the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """A mirror image: transpose first, then flip rows, then flip columns."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    def apply(self, array: Floats) -> Floats:
        """The view of ``(..., H, W)``; no pixel is interpolated."""
        if self.transpose:
            array = array.swapaxes(-1, -2)
        return array[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def undo(self, array: Floats) -> Floats:
        """Back to the orientation that ``apply`` was given."""
        array = array[..., :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return array.swapaxes(-1, -2) if self.transpose else array


def views(square: bool) -> list[View]:
    """The 8 flips and quarter turns of a square input, or the 4 that keep the shape of another."""
    flags = (False, True)
    return [View(t, r, c) for t in (flags if square else flags[:1]) for r in flags for c in flags]


def stack_views(image: Floats) -> Floats:
    """Every view of an input ``float32 (3, H, W)`` as one batch ``float32 (V, 3, H, W)``."""
    return np.stack([view.apply(image) for view in views(image.shape[-2] == image.shape[-1])])


def undo_views(maps: Floats) -> Floats:
    """What a network gives for the views of ``stack_views``, ``float32 (V, h, w)``, all turned back."""
    return np.stack([view.undo(m) for view, m in zip(views(len(maps) == 8), maps, strict=True)])


def merge_views(probabilities: Floats) -> Floats:
    """The mean over views ``float32 (V, h, w)`` of ``stack_views``, turned back: ``float32 (h, w)``."""
    merged: Floats = undo_views(probabilities).mean(axis=0, dtype=np.float32)
    return merged
