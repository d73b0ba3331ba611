"""Evaluation of masks, of any function from image to probability, and of a model on an index.

All three compare at the reference's own size, one reference at a time, and give the same `Evaluation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.errors import DataError, DermsegError, MaskError
from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.table import Evaluation, Fact, Failure, ImageScore
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask

if TYPE_CHECKING:
    from dermseg.inference.predictor import Model, Result

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Probability = NDArray[np.float32]
References = Literal["first", "all"]


def evaluate_pairs(pairs: Iterable[tuple[str, Mask, Mask]]) -> Evaluation:
    """Compare masks that are in memory.

    Parameters
    ----------
    pairs
        ``(image_id, prediction, reference)``, both bool ``(H, W)``; read one at a time. A pair whose shapes
        differ becomes a failed row. An id that comes again is the same image with another reference.
    """
    scores: list[ImageScore] = []
    failures: list[Failure] = []
    for image_id, prediction, reference in pairs:
        try:
            counts = count_pixels(prediction, reference)
        except MaskError as error:
            failures.append(Failure(image_id, str(error)))
        else:
            scores.append(ImageScore(image_id, counts, facts=area_facts(prediction, reference)))
    return Evaluation(scores, failures)


def evaluate_function(
    probability: Callable[[Image], Probability],
    items: Iterable[tuple[str, Image, Mask]],
    *,
    threshold: float = 0.5,
    postprocess: Callable[[Probability], Mask] | None = None,
) -> Evaluation:
    """Evaluate any function from an image to a probability map, for example a network in training.

    Parameters
    ----------
    probability
        From uint8 ``(H, W, 3)`` RGB to float32 ``(h, w)`` in [0, 1]; a map of another size than the reference
        (a network's own grid) is brought to it bilinearly.
    items
        ``(image_id, image, reference)``; read one at a time.
    threshold
        A pixel is lesion where its probability is at least this; not used with ``postprocess``.
    postprocess
        From the probability at the reference's size to the mask, in place of the threshold.
    """

    def predict() -> Iterator[tuple[str, Mask, Mask]]:
        for image_id, image, reference in items:
            values = np.asarray(probability(image), dtype=np.float32)
            height, width = reference.shape
            if values.shape != reference.shape:
                resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
                values = resized.astype(np.float32, copy=False)
            yield image_id, values >= threshold if postprocess is None else postprocess(values), reference

    return evaluate_pairs(predict())


def select_split(rows: Sequence[IndexRow], split: str) -> tuple[list[IndexRow], int]:
    """The rows of one split that have a mask, and how many have none; ``all`` takes all but ``excluded``.

    Raises
    ------
    DataError
        The split has no row, or none with a mask.
    """
    if split == "all":
        chosen = [row for row in rows if row.split != "excluded"]
    else:
        chosen = [row for row in rows if row.split == split]
    if not chosen:
        there = sorted({row.split or "(none)" for row in rows})
        raise DataError(
            f"split '{split}' has no images", hint=f"splits in this index: {', '.join(there)}, all"
        )
    with_masks = [row for row in chosen if row.masks]
    if not with_masks:
        raise DataError(f"none of the {len(chosen)} images of split '{split}' has a mask")
    return with_masks, len(chosen) - len(with_masks)


def evaluate_rows(
    model: Model,
    rows: Sequence[IndexRow],
    *,
    references: References = "first",
    threshold: float | None = None,
    tta: bool = False,
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run a model over rows of an index and compare with their masks, at the masks' own size.

    Each image goes the way it goes in ``dermseg segment``: same decoding, same post-processing. An image or
    mask that cannot be read, or a mask of another size than its image, is a failed row.

    Parameters
    ----------
    model
        As ``dermseg.load_model`` gives it.
    rows
        Rows with at least one mask.
    references
        ``first`` compares with the first mask, ``all`` with each.
    threshold, tta
        As in ``Model.segment``.
    batch_size
        Images that go through the network together.
    progress
        Called with the number of images done since the last call.
    """
    scores: list[ImageScore] = []
    failures: list[Failure] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        for row, result in zip(batch, _segment(model, batch, threshold, tta), strict=True):
            try:
                if isinstance(result, DermsegError):
                    raise result
                scores += _score_row(row, result, references)
            except DermsegError as error:
                failures.append(Failure(row.image_id, str(error), row.dataset, row.group))
        if progress is not None:
            progress(len(batch))
    return Evaluation(scores, failures)


def _segment(
    model: Model, rows: Sequence[IndexRow], threshold: float | None, tta: bool
) -> list[Result | DermsegError]:
    """A result per row; what cannot be read is its error, and the others go on."""
    outcomes: list[Result | DermsegError | None] = []
    images = []
    for row in rows:
        try:
            images.append(load_image(open_image(row), min_side=model.min_side))
            outcomes.append(None)
        except DermsegError as error:
            outcomes.append(error)
    results = iter(model.segment_batch(images, threshold=threshold, tta=tta) if images else [])
    return [next(results) if outcome is None else outcome for outcome in outcomes]


def _score_row(row: IndexRow, result: Result, references: References) -> list[ImageScore]:
    numbers = range(len(row.masks)) if references == "all" else range(1)
    scores = []
    for number in numbers:
        reference = load_mask(open_mask(row, number))
        facts: dict[str, Fact] = {
            "reference": number + 1,
            "width": result.width,
            "height": result.height,
            **area_facts(result.mask, reference),
            "confidence": result.confidence,
            "found": result.status,
            "components_removed": result.components_removed,
            "touches_border": bool(result.touches_border),
        }
        counts = count_pixels(result.mask, reference)
        scores.append(ImageScore(row.image_id, counts, row.dataset, row.group, facts))
    return scores


def area_facts(prediction: Mask, reference: Mask) -> dict[str, Fact]:
    """Lesion area as a share of the image, in both masks."""
    return {
        "predicted_area_fraction": float(prediction.mean()) if prediction.size else None,
        "reference_area_fraction": float(reference.mean()) if reference.size else None,
    }
