"""Masks against masks: two folders or zips, matched by name (`matching`).

Decisions
- A reference without a prediction is refused, as the official scorer does, unless missing predictions are
  asked to count as empty masks. Leaving them out would let a model skip what it finds hard.
- A size mismatch is a failed row: resizing here would hide that the predictions are not in the references'
  geometry.
- A mask is cut like the official scorer cuts it (lesion above 128). Two-valued files such as 0/1 are read as
  they are meant; the official scorer would see an empty mask there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DermsegError, ImageError, MaskError, UsageError
from dermseg.evaluation.evaluate import score_pair
from dermseg.evaluation.matching import Pairing, match_paths
from dermseg.evaluation.table import Evaluation, Fact, Failure, ImageScore
from dermseg.images import masks
from dermseg.images.convert import LAID_ON_WHITE
from dermseg.images.decode import decode
from dermseg.images.load import load_image, open_header
from dermseg.images.sources import ImageSource
from dermseg.inference.threads import available_cpus


def score_sources(
    pairing: Pairing, *, missing_is_empty: bool = False, progress: Callable[[int], None] | None = None
) -> tuple[Evaluation, list[str]]:
    """Read and compare matched masks.

    Parameters
    ----------
    pairing
        As `match_masks` gives it.
    missing_is_empty
        Score references without a prediction against an empty mask.
    progress
        Called with the number of images done since the last call.

    Returns
    -------
    Evaluation, list of str
        The table, and notes on masks that were not plainly binary.

    Raises
    ------
    UsageError
        Predictions are missing and that was not allowed.
    """
    if pairing.missing and not missing_is_empty:
        names = ", ".join(image_id for image_id, _ in pairing.missing[:5])
        raise UsageError(
            f"{len(pairing.missing)} of {len(pairing.missing) + len(pairing.pairs) + len(pairing.ambiguous)} "
            f"references have no prediction: {names}{', ...' if len(pairing.missing) > 5 else ''}",
            hint="add them, or --allow-missing counts each as an empty mask"
            if pairing.pairs or not pairing.extra
            else f"no prediction is called like one of them, but for endings as _segmentation and _pred: the "
            f"first is {pairing.extra[0]}",
        )
    scores: list[ImageScore] = []
    failures = [Failure(image_id, reason) for image_id, reason in pairing.ambiguous]
    notes: list[str] = []
    work: list[tuple[str, ImageSource | None, ImageSource]] = [*pairing.pairs]
    work += [(image_id, None, reference) for image_id, reference in pairing.missing]
    work.sort(key=lambda item: item[0])
    with ThreadPoolExecutor(available_cpus()) as pool:
        for (image_id, _, _), outcome in zip(work, pool.map(_score_files, work), strict=True):
            if isinstance(outcome, DermsegError):
                failures.append(Failure(image_id, str(outcome)))
            else:
                scores.append(outcome[0])
                notes += outcome[1]
            if progress is not None:
                progress(1)
    return Evaluation(scores, failures), notes


def _score_files(
    work: tuple[str, ImageSource | None, ImageSource],
) -> tuple[ImageScore, list[str]] | DermsegError:
    image_id, prediction_source, reference_source = work
    try:
        reference, said = read_mask(reference_source)
        notes = [f"reference {reference_source.name}: {note}" for note in said]
        if prediction_source is None:
            prediction = np.zeros_like(reference)
        else:
            prediction, said = read_mask(prediction_source)
            notes += [f"prediction {prediction_source.name}: {note}" for note in said]
        score = score_pair(image_id, prediction, reference)
    except DermsegError as error:
        return error
    missing: dict[str, Fact] = {"missing": prediction_source is None}
    return replace(score, facts={**score.facts, **missing}), notes


def score_folders(
    predictions: str | Path, references: str | Path, *, missing_is_empty: bool = False
) -> Evaluation:
    """Score two folders or zips of masks; see `match_paths` and `score_sources`.

    Raises
    ------
    UsageError
        A path is missing or holds no image, or predictions are missing and that was not allowed.
    """
    return score_sources(match_paths(predictions, references), missing_is_empty=missing_is_empty)[0]


def read_mask(source: ImageSource) -> tuple[NDArray[np.bool_], list[str]]:
    """A mask file as bool ``(H, W)``, and what had to be decided to read it.

    Grey values above 128 are lesion, as in the official scorer, so that probability maps and resized masks
    score as they would there. A file of two values that never gets there (0/1) is read as it is meant, and so
    is one with a transparent layer.

    Raises
    ------
    MaskError
        The file is a colour image.
    ImageError
        It cannot be read.
    """
    try:
        image = load_image(source)
    except ImageError as error:
        pixels = _segmentation(source, error)
    else:
        if LAID_ON_WHITE in image.info.notes:  # what is white there may be no lesion, but nothing at all
            layered = masks.read_mask(source)
            return layered.mask, list(layered.notes)
        pixels = image.pixels
    grey = pixels[..., 0]
    is_grey = np.array_equal(grey, pixels[..., 1]) and np.array_equal(grey, pixels[..., 2])
    if is_grey and grey.max() > 128:
        soft = np.count_nonzero((grey > 0) & (grey < 255))
        return grey > 128, ["not only 0 and 255; lesion is what is above 128"] if soft else []
    try:
        loaded = masks.read_mask(source)
    except MaskError:
        if not is_grey:
            raise
        return grey > 128, ["no value is above 128: empty"]
    notes = list(loaded.notes)
    if is_grey and loaded.mask.any():
        notes.append(f"its lesion has the value {grey.max()}; the official scorer would see an empty mask")
    return loaded.mask, notes


def _segmentation(source: ImageSource, error: ImageError) -> NDArray[np.uint8]:
    """A DICOM segmentation as ``uint8 (H, W, 3)``; anything else raises ``error``, which names the file."""
    try:
        header = open_header(source)
    except ImageError:
        raise error from None
    if not header.mask_only:
        raise error
    return np.repeat(np.asarray(decode(header), np.uint8)[..., None], 3, axis=2)
