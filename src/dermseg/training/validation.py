"""The figures that choose the best checkpoint, and pictures of what the network does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dermseg.data.cache import Cache
from dermseg.errors import ConfigError
from dermseg.images.overlay import draw_overlay
from dermseg.registry import load_dotted
from dermseg.training.distributed import World
from dermseg.training.targets import find_masks

_BATCH = 16
_SHOWN, _SHOWN_SIDE = 4, 320
Metric = Callable[[Tensor, Tensor], Tensor]  # found and reference, bool (N, M, H, W), to (N,) or (N, M)


class Validation:
    """Scores a network on cached images at the size of the cache, threshold 0.5 (or the likeliest class).

    Quick figures for choosing checkpoints; ``dermseg evaluate`` gives those to report. Where neither the
    reference nor the prediction has a lesion, Dice and Jaccard are 1.

    Parameters
    ----------
    metric
        A name of ``registry.METRICS``, or a dotted path to a function of found and reference masks, both
        ``bool (N, M, H, W)``, that gives ``(N,)`` or ``(N, M)`` values of which larger is better.
    normalize
        From ``uint8 (N, 3, H, W)`` to the network's input.
    """

    def __init__(
        self, metric: str, normalize: Callable[[Tensor], Tensor], softmax: bool, world: World | None = None
    ) -> None:
        self.metric = metric
        self.custom: Metric | None = load_dotted(metric) if "." in metric else None
        self.normalize, self.softmax = normalize, softmax
        self.world = world or World()

    @torch.inference_mode()
    def scores(self, model: nn.Module, cache: Cache, size: int) -> tuple[float, float]:
        """The metric, and the mean Dice over images and masks; each rank computes its share.

        Raises
        ------
        ConfigError
            The metric of somebody else fails or gives something else than one finite value per image.
        """
        rows: list[tuple[int, NDArray[np.int64], NDArray[np.float64] | None]] = []
        for positions, found, reference in self._predict(model, cache, size):
            counts = _count(found, reference)
            own = self._own(found, reference) if self.custom else None
            rows += [
                (position, counts[i], None if own is None else own[i]) for i, position in enumerate(positions)
            ]
        rows = sorted((row for part in self.world.gather(rows) for row in part), key=lambda row: row[0])
        counts = np.stack([row[1] for row in rows])
        dice = _overlap(counts, dice=True).mean()
        match self.metric:
            case "dice":
                score = dice
            case "jaccard":
                score = _overlap(counts, dice=False).mean()
            case "micro_jaccard":
                score = float(_overlap(counts.sum(axis=(0, 1)), dice=False))
            case _:
                score = np.mean([row[2] for row in rows])
        return float(score), float(dice)

    def _predict(self, model: nn.Module, cache: Cache, size: int) -> Iterator[tuple[range, Tensor, Tensor]]:
        """Positions, and masks found and reference ``bool (N, M, H, W)`` of this rank's images."""
        step = _BATCH * self.world.size
        for first in range(_BATCH * self.world.rank, len(cache), step):
            positions = range(first, min(first + _BATCH, len(cache)))
            images = cache.images[positions.start : positions.stop]
            reference = mask_channels(cache.masks[positions.start : positions.stop]) >= 128
            yield positions, self.masks(model, images, size).cpu(), reference

    def masks(self, model: nn.Module, images: NDArray[np.uint8], size: int) -> Tensor:
        """Masks ``bool (N, M, H, W)`` for images ``uint8 (N, H, W, 3)``, which are seen at ``size``."""
        x = self.normalize(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2))
        if x.shape[-1] != size:
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        logits = F.interpolate(model(x).float(), size=images.shape[1:3], mode="bilinear")
        return find_masks(logits, self.softmax)

    def _own(self, found: Tensor, reference: Tensor) -> NDArray[np.float64]:
        assert self.custom is not None
        try:
            values = np.asarray(self.custom(found, reference), np.float64)
        except Exception as error:  # whatever somebody else's metric does
            raise ConfigError(
                f"training.metric '{self.metric}' fails: {type(error).__name__}: {error}"
            ) from error
        if values.ndim not in (1, 2) or len(values) != len(found):
            raise ConfigError(
                f"training.metric '{self.metric}' gave shape {values.shape} for {len(found)} images",
                hint="one value per image, or one per image and mask",
            )
        if not np.isfinite(values).all():  # nothing is better than NaN: the first epoch would stay the best
            raise ConfigError(
                f"training.metric '{self.metric}' gave {values[~np.isfinite(values)][0]} for an image",
                hint="where neither mask has a pixel, 0/0 is to be a number, such as 1",
            )
        return values

    @torch.inference_mode()
    def pictures(self, model: nn.Module, cache: Cache, size: int) -> NDArray[np.uint8]:
        """The first images with their references above, predictions below: ``uint8 (H, W, 3)``."""
        images = np.array(cache.images[:_SHOWN])
        reference = mask_channels(cache.masks[:_SHOWN]) >= 128
        found = self.masks(model, images, size).cpu()
        dice = _overlap(_count(found, reference), dice=True).mean(axis=1)
        columns = []
        for i, image in enumerate(images):
            big: Any = cv2.resize(image, (_SHOWN_SIDE, _SHOWN_SIDE), interpolation=cv2.INTER_LINEAR)
            above = draw_overlay(big, reference[i].any(0).numpy(), legend=("reference",))
            below = draw_overlay(big, found[i].any(0).numpy(), legend=(f"Dice {dice[i]:.3f}",))
            columns.append(np.concatenate([above, below]))
        return np.concatenate(columns, axis=1)


def _count(found: Tensor, reference: Tensor) -> NDArray[np.int64]:
    """Pixels in both, found, and in the reference of masks ``bool (N, M, H, W)``: ``(N, M, 3)``."""
    both = (found & reference).sum((2, 3))
    return torch.stack([both, found.sum((2, 3)), reference.sum((2, 3))], dim=-1).numpy()


def _overlap(counts: NDArray[np.int64], *, dice: bool) -> NDArray[np.float64]:
    """Dice or Jaccard of counts ``(..., 3)`` as of ``_count``; 1 where all is 0."""
    both, found, reference = np.moveaxis(counts.astype(np.float64), -1, 0)
    above, below = (2 * both, found + reference) if dice else (both, found + reference - both)
    return np.where(below > 0, above / np.maximum(below, 1), 1.0)


def mask_channels(masks: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Masks of a cache, ``(N, S, S)`` or ``(N, S, S, M)``, as a tensor ``(N, M, S, S)``."""
    tensor = torch.from_numpy(np.array(masks))
    return tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)
