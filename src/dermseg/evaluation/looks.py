"""What fitting and judging uncertainty need of each image: the network's logits, passes and the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.evaluation.counts import Counts, count_pixels
from dermseg.evaluation.evaluate import cluster_of
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.images.packed import PackedMask
from dermseg.inference.card import Postprocessing
from dermseg.inference.postprocess import Cleaned, clean, to_probability, upsample_mask
from dermseg.inference.predictor import Model
from dermseg.uncertainty.features import map_features
from dermseg.uncertainty.maps import Floats, Uncertainty
from dermseg.uncertainty.margins import shrink_mask
from dermseg.uncertainty.mc_dropout import McSession

Mask = NDArray[np.bool_]
Halves = NDArray[np.float16]
_BATCH = 8


@dataclass(frozen=True, eq=False)
class Look:
    """One image as the network sees it, at temperature 1.

    Attributes
    ----------
    row
        Its row in the index.
    logits
        ``float16 (h, w)`` of the plain pass.
    packed
        The first mask, packed: the looks of a whole data set are held at once.
    passes
        ``float16 (N, h', w')`` of Monte-Carlo dropout, on the network's own grid; None without it.
    """

    row: IndexRow
    logits: Halves
    packed: PackedMask
    passes: Halves | None = None

    @property
    def reference(self) -> Mask:
        """``bool (H, W)``, the first mask; unpacked each time."""
        return self.packed.unpack()

    @property
    def group(self) -> str:
        """Patient, lesion or group of near-duplicates; one of its own where none is known."""
        return cluster_of(self.row) or f"{self.row.dataset}/{self.row.image_id}"

    def probability(self, temperature: float) -> Floats:
        """``float32 (h, w)`` of the plain pass."""
        return to_probability(self.logits.astype(np.float32), temperature)

    def opinions(self, temperature: float) -> Uncertainty | None:
        """The Monte-Carlo passes as maps; None without them."""
        if self.passes is None:
            return None
        return Uncertainty(to_probability(self.passes.astype(np.float32), temperature))

    @cached_property
    def network_reference(self) -> Mask:
        """``bool (h, w)``: the reference on the grid of the plain pass."""
        return shrink_mask(self.reference, (self.logits.shape[0], self.logits.shape[1]))


@dataclass(frozen=True, eq=False)
class Outlined:
    """The outline that a post-processing draws on one image, and how it compares with the reference."""

    look: Look
    probability: Floats
    cleaned: Cleaned
    counts: Counts

    @property
    def mask(self) -> Mask:
        """``bool (H, W)``, drawn each time: those of a whole data set would fill the memory."""
        return upsample_mask(self.cleaned, self.look.packed.shape)

    @cached_property
    def features(self) -> dict[str, float]:
        """What the predicted Dice is made of."""
        return map_features(self.probability, self.cleaned.labels > 0, self.cleaned.threshold)


def outline(look: Look, post: Postprocessing) -> Outlined:
    """As ``dermseg segment`` does it, from the stored logits."""
    probability = look.probability(post.temperature)
    cleaned = clean(probability, post)
    mask = upsample_mask(cleaned, look.packed.shape)
    return Outlined(look, probability, cleaned, count_pixels(mask, look.reference))


def collect(
    model: Model,
    rows: Sequence[IndexRow],
    *,
    session: McSession | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Look]:
    """Run the network over rows of an index, in order.

    Parameters
    ----------
    session
        For Monte-Carlo dropout besides the plain pass.

    Raises
    ------
    DermsegError
        An image or mask cannot be read: what is fitted must not depend on which files happened to work.
    """
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        references, inputs = [], []
        for row in batch:
            image = load_image(open_image(row), min_side=model.min_side)
            mask = load_mask(open_mask(row), size=(image.info.height, image.info.width))
            references.append(PackedMask.of(mask))
            inputs.append(model.prepare(image.pixels))
        logits = model.session(np.stack(inputs))[:, 0].astype(np.float16)
        for row, x, z, reference in zip(batch, inputs, logits, references, strict=True):
            passes = None if session is None else session.repeat(x)[:, 0].astype(np.float16)
            yield Look(row, z, reference, passes)
        if progress is not None:
            progress(len(batch))
