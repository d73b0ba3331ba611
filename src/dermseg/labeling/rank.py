"""Which unlabelled images to label next.

- ``uncertainty``: the model's own estimate of its Dice, lowest first.
- ``disagreement``: views of one image (flips and quarter turns) that give different outlines; 1 minus the
  mean Dice of each view's mask with that of the mean map.
- ``diversity``: farthest-first traversal of image descriptors (Sener and Savarese 2018, arXiv 1708.00489), so
  that what is labelled first covers all that is there.
- ``mixed``: diversity among the more uncertain half.
- ``random``: the honest control, by seed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image
from dermseg.errors import DermsegError
from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.metrics import dice
from dermseg.images.load import load_image
from dermseg.images.sources import ImageSource
from dermseg.inference.predictor import Model
from dermseg.inference.tta import merge_views, stack_views, undo_views
from dermseg.labeling.propose import saved_by_person

Strategy = Literal["uncertainty", "disagreement", "diversity", "mixed", "random"]
STRATEGIES: tuple[Strategy, ...] = ("uncertainty", "disagreement", "diversity", "mixed", "random")
SPREADING: frozenset[Strategy] = frozenset({"diversity", "mixed"})
"""Those that keep away from what is labelled already."""


@dataclass(frozen=True)
class Look:
    """What the model says of one image.

    Attributes
    ----------
    uncertainty, disagreement
        In [0, 1]; higher is worse.
    descriptor
        float32 (D,): where the image lies among others.
    """

    uncertainty: float
    disagreement: float
    descriptor: NDArray[np.float32]


def look_at(model: Model, pixels: NDArray[np.uint8]) -> Look:
    """Uncertainty, disagreement and descriptor of an image ``uint8 (H, W, 3)``."""
    maps, features = model.look(stack_views(model.prepare(pixels)))
    result = model.finish(maps[0], (pixels.shape[0], pixels.shape[1]))
    pooled = None if features is None else features[0]
    return make_look(maps, pixels, pooled, confidence=result.confidence, threshold=result.threshold)


def make_look(
    maps: NDArray[np.float32],
    pixels: NDArray[np.uint8],
    features: NDArray[np.float32] | None,
    *,
    confidence: float,
    threshold: float,
) -> Look:
    """A look from what a network gives.

    Parameters
    ----------
    maps
        ``float32 (V, h, w)``, probabilities of the views of ``stack_views``, of which the first is the image
        as it is; with that one alone the disagreement is 0.
    features
        ``float32 (D,)`` of the image; None where the network gives none.
    confidence, threshold
        What is expected of the outline, and the probability that it was drawn at.
    """
    disagreement = 0.0
    if len(maps) > 1:
        mean = merge_views(maps)
        disagreement = 1.0 - float(
            np.mean([dice(count_pixels(p > threshold, mean > threshold)) for p in undo_views(maps)])
        )
    descriptor = features if features is not None else _describe(pixels, maps[0])
    return Look(1.0 - confidence, disagreement, descriptor.astype(np.float32))


def _describe(pixels: NDArray[np.uint8], probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours and coarse layout, for a bundle whose network gives no features: float32 (192 + 64,)."""
    small = cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    layout = cv2.resize(probability, (8, 8), interpolation=cv2.INTER_AREA)
    return np.concatenate([small.ravel(), layout.ravel()])


def rank(
    looks: Sequence[Look],
    strategy: Strategy,
    *,
    known: NDArray[np.float32] | None = None,
    seed: int = 0,
    number: int | None = None,
) -> list[int]:
    """Order images by what would teach most, best first.

    Parameters
    ----------
    looks
        One per image.
    known
        float32 (M, D), descriptors of images that are labelled already.
    number
        Only so many; for all of them, diversity takes time that grows with their square.
    """
    count = len(looks)
    if strategy == "random":
        return [int(i) for i in np.random.default_rng(seed).permutation(count)][:number]
    if strategy in ("uncertainty", "disagreement"):
        values = np.array([getattr(look, strategy) for look in looks])
        return [int(i) for i in np.argsort(-values, kind="stable")][:number]
    points = np.stack([look.descriptor for look in looks]) if count else np.zeros((0, 1), np.float32)
    if strategy == "diversity":
        return _farthest_first(points, known, number)
    order = np.argsort([-look.uncertainty for look in looks], kind="stable")
    half = order[: -(-count // 2)]
    first = [int(half[i]) for i in _farthest_first(points[half], known, number)]
    return (first + [int(i) for i in order[len(half) :]])[:number]


def _farthest_first(
    points: NDArray[np.float32], known: NDArray[np.float32] | None, number: int | None
) -> list[int]:
    """Each next point is the one farthest from all before it; with nothing known the first is the middle."""
    if not len(points):
        return []
    spread = points.std(0)
    scaled = points / np.where(spread > 0, spread, 1)
    if known is not None and len(known):
        anchors = known / np.where(spread > 0, spread, 1)
        distance = np.full(len(points), np.inf, np.float32)
        for anchor in anchors:
            np.minimum(distance, ((scaled - anchor) ** 2).sum(1), out=distance)
        chosen: list[int] = []
    else:
        first = int(((scaled - scaled.mean(0)) ** 2).sum(1).argmin())
        chosen = [first]
        distance = ((scaled - scaled[first]) ** 2).sum(1)
        distance[first] = -1
    while len(chosen) < min(len(points), len(points) if number is None else number):
        best = int(distance.argmax())
        chosen.append(best)
        distance = np.minimum(distance, ((scaled - scaled[best]) ** 2).sum(1))
        distance[chosen] = -1
    return chosen


def leave_out_labelled(
    sources: Sequence[ImageSource], rows: Sequence[IndexRow]
) -> tuple[list[ImageSource], list[ImageSource], list[ImageSource]]:
    """Images nobody has labelled; those of ``rows`` (the same file, or the same bytes elsewhere); and those
    with a LabelMe file beside them that a person has saved, as far as they are in no row."""
    files = {(os.path.realpath(source.path), source.member) for source in map(open_image, rows)}
    digests = {row.sha256 for row in rows if row.sha256}
    rest: list[ImageSource] = []
    indexed: list[ImageSource] = []
    saved: list[ImageSource] = []
    for source in sources:
        if (os.path.realpath(source.path), source.member) in files or (
            digests and _sha256(source) in digests
        ):
            indexed.append(source)
        else:
            (saved if saved_by_person(source) else rest).append(source)
    return rest, indexed, saved


def _sha256(source: ImageSource) -> str:
    try:
        return hashlib.sha256(source.read_bytes()).hexdigest()
    except DermsegError:  # said where it is looked at
        return ""


def look_at_all(
    model: Model,
    sources: Sequence[ImageSource],
    found: list[tuple[ImageSource, Look]],
    failed: list[tuple[str, str]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Look at images: looks go into ``found``, and what could not be read, with its reason, into ``failed``.

    One after the other, so that an interrupt leaves those that are done.
    """
    for number, source in enumerate(sources, start=1):
        try:
            found.append((source, look_at(model, load_image(source, min_side=model.min_side).pixels)))
        except DermsegError as error:
            failed.append((source.name, error.reason))
        if progress:
            progress(number, len(sources))
