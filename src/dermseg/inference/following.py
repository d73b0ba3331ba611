"""Following a lesion: several photographs of it in order of time, each measured, each laid on the first.

Every photograph is compared with the first that can be: small steps from one visit to the next hide a slow
change. The photographs of one lesion are in memory together, reduced to what a screen shows; the whole ones
are let go as soon as they are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from dermseg.errors import DermsegError
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.images.resize import area_mean, fit, shrink, stretch
from dermseg.images.sources import ImageSource
from dermseg.inference.predictor import Model
from dermseg.inference.stages import reason_of
from dermseg.measure.align import Alignment, align, chain, lay
from dermseg.measure.change import Change, ContrastChange, change, contrast_change
from dermseg.measure.colour import Colour, describe_colour
from dermseg.measure.geometry import Reading, measure_mask
from dermseg.measure.landmarks import Landmarks, landmarks
from dermseg.quality.measures import vignette
from dermseg.quality.verdict import Level
from dermseg.uncertainty.repeatability import Repeatability

VIEW = 768  # longer side of what is kept of a photograph, pixels
_APART = 0.1  # share of the smaller outline in the other one: a lesion that grows or shrinks has nearly all
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Photograph:
    """A photograph of a lesion.

    Attributes
    ----------
    image
        Where it is.
    lesion
        What the lesion is called.
    taken
        When; None takes what the file knows (DICOM).
    spacing_mm
        Millimetres between pixel centres (row, column); None takes what the file knows.
    mask
        An outline by a person, used instead of the model's.
    """

    image: ImageSource
    lesion: str = ""
    taken: date | None = None
    spacing_mm: tuple[float, float] | None = None
    mask: ImageSource | None = None


@dataclass(frozen=True, eq=False)
class Visit:
    """What was found in a photograph.

    Attributes
    ----------
    photograph
        Which.
    status, message
        ``ok``, ``no_lesion`` or ``failed``, and what there is to say.
    verdict
        The gate's; None for a person's outline and for a bundle without a gate.
    reading
        Measurements of the outline; None where it failed.
    colour
        Colours of lesion and skin; None where they cannot be told.
    view, lesion
        ``uint8 (h, w, 3)`` RGB and ``bool (h, w)``, at most ``VIEW`` pixels wide and high, with square
        pixels; None where it failed.
    marks
        What can be recognised in it; None where there is no lesion, or the gate rejects.
    scale_remark
        That the millimetres given are not those that the file knows; empty where nothing is odd.
    """

    photograph: Photograph
    status: Literal["ok", "no_lesion", "failed"]
    message: str = ""
    verdict: Level | None = None
    reading: Reading | None = None
    colour: Colour | None = None
    view: Pixels | None = None
    lesion: Mask | None = None
    marks: Landmarks | None = None
    scale_remark: str = ""

    @property
    def usable(self) -> bool:
        """Whether a size can be compared with it."""
        return self.marks is not None and self.reading is not None


@dataclass(frozen=True, eq=False)
class Comparison:
    """A later photograph against the first usable one, see `follow`.

    Attributes
    ----------
    first, second
        Numbers of the visits.
    change
        Of the size.
    alignment
        How the second lies on the first; None where that is not known.
    overlap
        Dice of both outlines as they lie on each other.
    contrast
        Of the contrast to the skin; None where that is not known.
    """

    first: int
    second: int
    change: Change
    alignment: Alignment | None
    overlap: float | None
    contrast: ContrastChange | None = None


@dataclass(frozen=True, eq=False)
class Followed:
    """A lesion, its visits in order of time, and what has become of it."""

    lesion: str
    visits: tuple[Visit, ...]
    comparisons: tuple[Comparison, ...]


def follow(
    model: Model, photographs: Sequence[Photograph], *, progress: Callable[[], None] = lambda: None
) -> Followed:
    """Measure photographs of one lesion and compare each with the first usable one.

    Where the lesion reaches the edge of that one, its size is not known: the next that shows all of it takes
    its place for those that follow. A photograph that cannot be read is a failed visit, never the end.

    Parameters
    ----------
    model
        What finds the outline where no person has drawn it.
    photographs
        In order of time.
    progress
        Called after each.
    """
    known = model.repeatability
    visits: list[Visit] = []
    comparisons: list[Comparison] = []
    base: int | None = None
    for number, photograph in enumerate(photographs):
        visit = look(model, photograph)
        if visit.usable and base is not None:
            alignment = _onto_first(visits, comparisons, base, visit)
            comparisons.append(compare(visits[base], visit, (base, number), known, alignment))
            if _is_cut_off(visits[base]) and not _is_cut_off(visit):
                base = number
        elif visit.usable:
            base = number
        visits.append(visit)
        progress()
    return Followed(photographs[0].lesion if photographs else "", tuple(visits), tuple(comparisons))


def _is_cut_off(visit: Visit) -> bool:
    return visit.reading is not None and visit.reading.touches_border


def look(model: Model, photograph: Photograph) -> Visit:
    """Read, outline and measure one photograph."""
    try:
        return _look(model, photograph)
    except DermsegError as error:
        where = "" if error.file in (None, photograph.image.label) else f"{error.file}: "
        return Visit(photograph, "failed", where + error.reason)
    except Exception as error:  # out of memory, say: one photograph is not worth all the others
        return Visit(photograph, "failed", reason_of(error))


def _look(model: Model, photograph: Photograph) -> Visit:
    loaded = load_image(photograph.image, min_side=max(VIEW // 2, model.min_side))
    photograph = replace(photograph, taken=photograph.taken or loaded.info.taken)
    size = (loaded.info.height, loaded.info.width)
    remark = _scale_remark(photograph.spacing_mm, loaded.info.spacing_mm)
    notes = [*loaded.info.notes, *([remark] if remark else [])]
    verdict, message = None, "; ".join(notes)
    if photograph.mask is not None:
        mask = load_mask(photograph.mask, size=size)
    else:
        result = model.segment(loaded)
        mask = result.mask
        if result.verdict is not None:
            verdict = result.verdict.level
            message = "; ".join([*result.verdict.reasons, *notes])
    reading = measure_mask(mask, photograph.spacing_mm or loaded.info.spacing_mm)
    view = shrink(loaded.pixels, VIEW)
    squared = _squared(size, reading.spacing_mm)
    if squared != size:
        view = stretch(view, *fit(*squared, max(view.shape)))
    lesion = _small(mask, view.shape[:2])
    if not lesion.any():
        return Visit(photograph, "no_lesion", message, verdict, reading, None, view, lesion)
    colour = describe_colour(view, lesion)
    marks = None
    if verdict != "reject":
        grey = np.asarray(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), np.uint8)
        marks = landmarks(view, lesion, squared, frame=~vignette(grey))
    return Visit(photograph, "ok", message, verdict, reading, colour, view, lesion, marks, remark)


def _scale_remark(given: tuple[float, float] | None, own: tuple[float, float] | None) -> str:
    """What to say of millimetres that were taken although the file knows others."""
    if given is None or own is None or np.allclose(given, own, rtol=0.001, atol=0):
        return ""
    row, column = own
    return f"the millimetres given were taken, the file says {row:g} and {column:g} (row and column)"


def _squared(size: tuple[int, int], spacing_mm: tuple[float, float] | None) -> tuple[int, int]:
    """Height and width at which the pixels are square and as many as before.

    Else no turn would lay one photograph on another, and the skin would tell a wrong scale.
    """
    if spacing_mm is None or math.isclose(*spacing_mm, rel_tol=0.001):
        return size
    taller = math.sqrt(spacing_mm[0] / spacing_mm[1])
    return max(1, round(size[0] * taller)), max(1, round(size[1] / taller))


def _onto_first(
    visits: Sequence[Visit], comparisons: Sequence[Comparison], base: int, visit: Visit
) -> Alignment | None:
    """How a visit lies on visit ``base``: directly, else over the latest one that leads there."""
    marks, first = visit.marks, visits[base].marks
    assert marks is not None and first is not None
    direct = align(first, marks)
    if direct is not None and direct.scale is not None:
        return direct
    for earlier in reversed(comparisons):
        between = visits[earlier.second].marks
        if (
            earlier.first != base
            or earlier.alignment is None
            or earlier.alignment.scale is None
            or between is None
        ):
            continue
        link = align(between, marks)
        if link is not None and (found := chain(earlier.alignment, link)) is not None:
            return found
    return direct


def compare(
    first: Visit,
    second: Visit,
    numbers: tuple[int, int],
    known: Repeatability | None,
    alignment: Alignment | None,
) -> Comparison:
    """A usable visit against an earlier usable one, which it lies on as ``alignment`` says."""
    assert first.marks is not None and second.marks is not None
    assert first.reading is not None and second.reading is not None
    assert first.lesion is not None and second.lesion is not None
    limits = None
    if known is not None and first.photograph.mask is None and second.photograph.mask is None:
        limits = known.of_pair(both_accepted=first.verdict == second.verdict == "accept")
    changed = change(
        first.reading,
        second.reading,
        alignment,
        area_limit=None if limits is None else limits.area,
        diameter_limit=None if limits is None else limits.diameter,
    )
    limit = None if limits is None else limits.contrast
    stands_out = contrast_change(first.colour, second.colour, limit=limit)
    notes = changed.notes
    if limits is not None and limits.area is None and changed.area is not None:
        notes = (*notes, "no range: the model was fitted on too few pairs with such verdicts")
    notes += tuple(
        f"{which} photograph: {visit.scale_remark}"
        for which, visit in (("first", first), ("this", second))
        if visit.scale_remark and changed.scale_from == "spacing"
    )
    one, two = first.photograph.taken, second.photograph.taken
    if one is not None and two is not None and two < one:
        notes = (*notes, "taken before the first photograph: check the order")
    overlap = None
    if alignment is not None:
        laid = lay_lesion(first, second, alignment)
        areas = int(np.count_nonzero(first.lesion)), int(np.count_nonzero(laid))
        both = int(np.count_nonzero(first.lesion & laid))
        overlap = 2 * both / sum(areas)
        if alignment.scale is not None and both <= _APART * min(areas):
            # of several lesions in a picture the one that was followed may have left it
            notes = ("the outlines lie in different places: one may be of another lesion", *notes)
            changed, stands_out = Change(changed.scale_from, changed.scale, None, None), None
    changed = replace(changed, notes=notes)
    return Comparison(*numbers, changed, alignment, overlap, stands_out)


def lay_lesion(first: Visit, second: Visit, alignment: Alignment) -> Mask:
    """The second outline as it lies on the view of the first, ``bool (h, w)``."""
    assert first.marks is not None and second.marks is not None
    assert first.lesion is not None and second.lesion is not None
    sizes = (first.marks.size, second.marks.size)
    mask = second.lesion.view(np.uint8)
    return lay(mask, alignment, sizes, first.lesion.shape[:2], nearest=True).view(np.bool_)


def _small(mask: Mask, shape: tuple[int, int]) -> Mask:
    """A mask at a smaller size: a pixel belongs to it where more than half of it does."""
    if mask.shape == shape:
        return mask
    return np.asarray(area_mean(mask.astype(np.float32), *shape) > 0.5, np.bool_)
