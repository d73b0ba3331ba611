"""Evaluation of masks, of any function from image to probability, and of a model on an index.

All three compare at the reference's own size, one reference at a time, and give the same `Evaluation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, open_mask
from dermseg.errors import DataError, DermsegError, MaskError
from dermseg.evaluation.appearance import describe_appearance
from dermseg.evaluation.boundary import boundary_metrics
from dermseg.evaluation.calibration import calibrate
from dermseg.evaluation.counts import count_pixels
from dermseg.evaluation.table import Evaluation, Fact, Failure, ImageScore
from dermseg.images.load import LoadedImage, load_image
from dermseg.images.masks import load_mask
from dermseg.inference.threads import available_cpus
from dermseg.measure.basics import describe

if TYPE_CHECKING:
    from dermseg.inference.predictor import Model
    from dermseg.inference.result import Result

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Probability = NDArray[np.float32]
References = Literal["first", "all"]
_BATCH = 8  # images that go through the network together
# Of the images of a batch, for each CPU: of large photographs eight would fill the memory.
_PIXELS = 24_000_000


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
            scores.append(score_pair(image_id, prediction, reference))
        except MaskError as error:
            failures.append(Failure(image_id, str(error)))
    return Evaluation(scores, failures)


def score_pair(image_id: str, prediction: Mask, reference: Mask) -> ImageScore:
    """Every metric that two masks give.

    Raises
    ------
    MaskError
        Not two masks of one shape.
    """
    counts = count_pixels(prediction, reference)
    facts: dict[str, Fact] = {"width": reference.shape[1], "height": reference.shape[0]}
    facts |= area_facts(prediction, reference)
    return ImageScore(image_id, counts, facts=facts, measures=boundary_metrics(prediction, reference))


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
            f"no image has split '{split}'", hint=f"splits in this index: {', '.join(there)}, all"
        )
    with_masks = [row for row in chosen if row.masks]
    if not with_masks:
        raise DataError(f"no image of split '{split}' has a mask ({len(chosen)} have none)")
    return with_masks, len(chosen) - len(with_masks)


def evaluate_rows(
    model: Model,
    rows: Sequence[IndexRow],
    *,
    references: References = "first",
    threshold: float | None = None,
    tta: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Run a model over rows of an index and compare with their masks, at the masks' own size.

    Each image goes the way it goes in ``dermseg segment``: same decoding, same post-processing. An image or
    mask that cannot be read, or a mask of another size than its image, is a failed row. Reading and comparing
    run on all CPUs; the table's order is that of the rows.

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
    progress
        Called with the number of images done since the last call.
    """
    scores: list[ImageScore] = []
    failures: list[Failure] = []
    with ThreadPoolExecutor(available_cpus()) as pool:
        for batch in _batches(rows, _PIXELS * available_cpus()):
            loaded = list(pool.map(partial(_load, min_side=model.min_side), batch))
            images = [image for image in loaded if isinstance(image, LoadedImage)]
            results = iter(model.segment_batch(images, threshold=threshold, tta=tta))
            pairs = [image if isinstance(image, DermsegError) else (image, next(results)) for image in loaded]
            outcomes = pool.map(partial(_score_row, references=references), batch, pairs)
            for row, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, DermsegError):
                    failures.append(Failure(row.image_id, str(outcome), row.dataset, cluster_of(row)))
                else:
                    scores += outcome
            if progress is not None:
                progress(len(batch))
    return Evaluation(scores, failures)


def _batches(rows: Sequence[IndexRow], pixels: int) -> Iterator[list[IndexRow]]:
    """Rows in their order, at most `_BATCH` together and of more than one at most so many pixels."""
    batch: list[IndexRow] = []
    held = 0
    for row in rows:
        size = row.width * row.height
        if batch and (len(batch) == _BATCH or held + size > pixels):
            yield batch
            batch, held = [], 0
        batch.append(row)
        held += size
    if batch:
        yield batch


def _load(row: IndexRow, min_side: int) -> LoadedImage | DermsegError:
    """The image, or what was wrong with it: the others of its batch go on."""
    try:
        return load_image(open_image(row), min_side=min_side)
    except DermsegError as error:
        return error


def _score_row(
    row: IndexRow, found: tuple[LoadedImage, Result] | DermsegError, references: References
) -> list[ImageScore] | DermsegError:
    if isinstance(found, DermsegError):
        return found
    numbers = range(len(row.masks)) if references == "all" else range(1)
    try:
        return [_score_reference(row, *found, number) for number in numbers]
    except DermsegError as error:
        return error


def _score_reference(row: IndexRow, image: LoadedImage, result: Result, number: int) -> ImageScore:
    reference = load_mask(open_mask(row, number), size=(result.height, result.width))
    counts = count_pixels(result.mask, reference)
    look = describe_appearance(image.pixels, reference)
    facts: dict[str, Fact] = {
        "reference": number + 1,
        "width": result.width,
        "height": result.height,
        **area_facts(result.mask, reference),
        "confidence": result.confidence,
        "found": result.status,
        "components_removed": result.components_removed,
        "touches_border": bool(result.touches_border),
        "contrast": look.contrast,
        "ita": look.ita,
        "ita_reason": look.reason,
    }
    calibration = calibrate(result.probability, reference)
    measures = boundary_metrics(result.mask, reference, spacing_mm=image.info.spacing_mm)
    known = {**measures, **calibration.metrics}
    return ImageScore(row.image_id, counts, row.dataset, cluster_of(row), facts, known, calibration)


def cluster_of(row: IndexRow) -> str:
    """What the row counts as one draw with: its group (patient, lesion or near-duplicates); or empty."""
    own = row.subject or row.lesion
    return row.group or (f"{row.dataset}/{own}" if own else "")


def area_facts(prediction: Mask, reference: Mask) -> dict[str, Fact]:
    """Lesion area as a share of the image in both masks, and whether the reference is cut by the frame."""
    if not reference.size:
        return {"predicted_area_fraction": None, "reference_area_fraction": None}
    return {
        "predicted_area_fraction": float(prediction.mean()),
        "reference_area_fraction": float(reference.mean()),
        "reference_touches_border": describe(reference).touches_border,
    }
