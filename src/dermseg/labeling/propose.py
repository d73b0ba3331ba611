"""Pre-labels: the model's outlines as LabelMe files, for people to correct.

A proposal says that it is one (``flags.proposed``, and the field ``dermseg`` with the digest of its shapes).
A LabelMe file that does not, or has other shapes, was made or changed by a person and is never written over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermseg.data.labelme import Annotation, Shape, mask_to_shapes, read_labelme, write_labelme
from dermseg.data.proposals import FACTS, PROPOSED, as_proposal, is_proposal
from dermseg.errors import DataError, DermsegError
from dermseg.files import atomic_write
from dermseg.images.load import load_image
from dermseg.images.sources import ImageSource
from dermseg.inference.postprocess import Lesions
from dermseg.inference.predictor import Model
from dermseg.inference.result import Result
from dermseg.labeling.owner import annotation_path, name_image, other_image, read_own

EPSILON = 0.5  # pixels: fewer points to drag, and no pixel of the outline moves visibly


@dataclass(frozen=True)
class Proposal:
    """What became of one image: ``status`` is ``proposed``, ``kept`` (a person's file) or ``failed``."""

    image: str
    file: str
    status: str
    message: str = ""
    confidence: float | None = None


def annotate(
    model: Model, result: Result, *, image: str, label: str = "lesion", epsilon: float = EPSILON
) -> Annotation:
    """A LabelMe annotation of a result; with ``lesions="all"`` every lesion has a group of its own.

    Parameters
    ----------
    image
        Path of the image as the file names it: relative to the folder of the file.
    epsilon
        How far in pixels a polygon may leave the mask's outline.
    """
    shapes: list[Shape] = []
    if result.labels is None:
        shapes = mask_to_shapes(result.mask, label, epsilon=epsilon)
    else:
        for number in range(1, int(result.labels.max()) + 1):
            part = mask_to_shapes(result.labels == number, label, epsilon=epsilon)
            shapes += [Shape(s.label, s.kind, s.points, number, s.mask) for s in part]
    facts: dict[str, Any] = {
        "model": model.card.name,
        "version": model.card.version,
        "sha256": model.sha256,
        "confidence": round(result.confidence, 4),
        "threshold": result.threshold,
    }
    return as_proposal(Annotation(image, result.width, result.height, tuple(shapes), {FACTS: facts}))


@dataclass(frozen=True)
class LabelmeEncoder:
    """Gives ``inference.stages.Segmenter`` the LabelMe file of an image (``--save labelme``); picklable.

    Parameters
    ----------
    model
        Whose results these are.
    out
        The output folder that the files' paths are relative to.
    """

    model: Model
    out: Path

    def __call__(
        self,
        source: ImageSource,
        result: Result,
        overlay: NDArray[np.uint8] | None,
        files: Mapping[str, str],
    ) -> dict[str, bytes]:
        """The file, where it is wanted."""
        if "labelme" not in files:
            return {}
        folder = (self.out / files["labelme"]).parent
        annotation = name_image(annotate(self.model, result, image=""), source, folder)
        return {"labelme": write_labelme(annotation)}


def saved_by_person(source: ImageSource) -> bool:
    """Whether a LabelMe file that a person made or saved lies beside the image (no member of a zip)."""
    file = source.path.with_suffix(".json")
    annotation = None if source.member is not None else _read_corrected(file)
    return annotation is not None and other_image(annotation, source, file.parent) is None


def corrected_below(folder: Path) -> list[Path]:
    """The LabelMe files in a folder that a person made or saved."""
    return [file for file in sorted(folder.rglob("*.json")) if _read_corrected(file) is not None]


def _read_corrected(file: Path) -> Annotation | None:
    """What a person drew; None where that is nothing."""
    try:
        annotation = read_labelme(file.read_bytes(), file)
    except (OSError, DataError):
        return None
    return None if is_proposal(annotation) else annotation


def propose(
    model: Model,
    sources: Sequence[ImageSource],
    folder: Path | None = None,
    *,
    label: str = "lesion",
    lesions: Lesions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Proposal]:
    """Write a LabelMe file for each image, beside it or below a folder.

    Parameters
    ----------
    folder
        Where the files go, with the images' relative paths; None puts each beside its image (not for zips).
    lesions
        As for ``Model.segment``; with ``all`` every lesion has a group of its own.
    """
    found: list[Proposal] = []
    takers: dict[Path, str] = {}
    for number, source in enumerate(sources, start=1):
        try:
            file = annotation_path(source, folder)
            if first := takers.get(file):
                raise DataError(f"{file.name} is the file of {first} already", hint="rename one of them")
            found.append(_propose(model, source, file, label, lesions))
            takers[file] = source.name  # an image that cannot be read takes no file
        except DermsegError as error:
            found.append(Proposal(source.name, "", "failed", error.reason))
        except OSError as error:  # of this file alone, such as a name that is too long with ".json"
            reason = f"its LabelMe file: {error.strerror or error}"
            found.append(Proposal(source.name, "", "failed", reason))
        if progress:
            progress(number, len(sources))
    return found


def _propose(model: Model, source: ImageSource, file: Path, label: str, lesions: Lesions | None) -> Proposal:
    if file.exists():
        there = read_own(file)
        if other := other_image(there, source, file.parent):
            hint = "rename one of them, or name another folder with -o"
            raise DataError(f"{file.name} is the file of {other} already", hint=hint)
        if not is_proposal(there):
            return Proposal(source.name, str(file), "kept", "a person has worked on this file")
    # LabelMe turns images by their EXIF tag too, so the outline lies where it is seen.
    result = model.segment(load_image(source, min_side=model.min_side), lesions=lesions)
    annotation = name_image(annotate(model, result, image="", label=label), source, file.parent)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, write_labelme(annotation))
    message = "" if result.status == "ok" else "nothing found"
    return Proposal(source.name, str(file), PROPOSED, message, round(result.confidence, 4))
