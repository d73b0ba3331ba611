"""The short way from Python: one call from an image to a mask, one from an index to figures."""

from __future__ import annotations

from functools import lru_cache
from os import PathLike
from pathlib import Path

from dermseg.data.index import read_index
from dermseg.data.splits import regroup
from dermseg.evaluation.evaluate import evaluate_rows, select_split
from dermseg.evaluation.table import Evaluation
from dermseg.inference.bundle import bundle_stamp, find_bundle
from dermseg.inference.postprocess import Lesions
from dermseg.inference.predictor import Image, Model, load_model
from dermseg.inference.result import Result


def _loaded(model: str | PathLike[str]) -> Model:
    """The model, kept as long as its bundle is the one that was loaded: another may be put in its place."""
    place = find_bundle(model).absolute()
    return _load(place, bundle_stamp(place))


@lru_cache(maxsize=2)
def _load(place: Path, stamp: tuple[int, ...]) -> Model:
    return load_model(place)


def segment(
    image: Image,
    *,
    model: str | PathLike[str] | Model = "default",
    threshold: float | None = None,
    lesions: Lesions | None = None,
    tta: bool = False,
) -> Result:
    """Find the lesion in one image; the model is loaded at the first call and kept.

    Parameters
    ----------
    image
        ``uint8 (H, W, 3)`` RGB, or a path, or the bytes of an image file.
    model
        Name of a bundled model, path of a bundle, or what ``load_model`` gave.
    threshold, lesions, tta
        As in ``Model.segment``.

    Raises
    ------
    ImageError
        The image cannot be read or is not an RGB image.
    UsageError
        ``threshold`` or ``lesions`` out of range.
    ModelError
        There is no such model, or its bundle is damaged.
    """
    chosen = model if isinstance(model, Model) else _loaded(model)
    return chosen.segment(image, threshold=threshold, lesions=lesions, tta=tta)


def evaluate(
    index: str | PathLike[str],
    *,
    split: str = "test",
    model: str | PathLike[str] | Model = "default",
    threshold: float | None = None,
    tta: bool = False,
) -> Evaluation:
    """Compare a model with the first mask of each image of a split, as ``dermseg evaluate`` does.

    ``Evaluation.summary()`` holds means with intervals and pooled figures, ``Evaluation.scores`` each image,
    ``Evaluation.failures`` those that could not be read or do not fit their mask.

    Parameters
    ----------
    index
        CSV that ``dermseg data import`` writes.
    split
        A split of the index, or ``all`` but the excluded; images without a mask are left out.
    model
        As in ``segment``.
    threshold, tta
        As in ``Model.segment``.

    Raises
    ------
    DataError
        The index cannot be read or the split has no masks.
    UsageError
        ``threshold`` out of range.
    ModelError
        There is no such model, or its bundle is damaged.
    """
    rows, _ = select_split(regroup(read_index(Path(index))), split)
    chosen = model if isinstance(model, Model) else _loaded(model)
    return evaluate_rows(chosen, rows, threshold=threshold, tta=tta)
