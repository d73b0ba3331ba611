"""The short way from Python: one call from an image to a mask, one from an index to figures."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from dermseg.data.index import read_index
from dermseg.data.splits import regroup
from dermseg.evaluation.evaluate import evaluate_rows, select_split
from dermseg.evaluation.table import Evaluation
from dermseg.inference.bundle import bundle_stamp, find_bundle
from dermseg.inference.postprocess import Lesions
from dermseg.inference.predictor import Image, Model, load_model
from dermseg.inference.result import Result


def _loaded(model: str | Path) -> Model:
    """The model, kept as long as its bundle is the one that was loaded: another may be put in its place."""
    place = find_bundle(model).absolute()
    return _load(place, bundle_stamp(place))


@lru_cache(maxsize=2)
def _load(place: Path, stamp: tuple[int, ...]) -> Model:
    return load_model(place)


def segment(
    image: Image,
    *,
    model: str | Path | Model = "default",
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
    """
    chosen = model if isinstance(model, Model) else _loaded(model)
    return chosen.segment(image, threshold=threshold, lesions=lesions, tta=tta)


def evaluate(
    index: str | Path,
    *,
    split: str = "test",
    model: str | Path | Model = "default",
    threshold: float | None = None,
    tta: bool = False,
) -> Evaluation:
    """Compare a model with the reference masks of one split of an index, as ``dermseg evaluate`` does.

    ``Evaluation.summary()`` holds means with intervals and pooled figures, ``Evaluation.scores`` each image.

    Raises
    ------
    DataError
        The index cannot be read or the split has no masks.
    """
    rows, _ = select_split(regroup(read_index(index)), split)
    chosen = model if isinstance(model, Model) else _loaded(model)
    return evaluate_rows(chosen, rows, threshold=threshold, tta=tta)
