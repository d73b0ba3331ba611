"""The photographs of a lesion as pictures: each laid on the first that can be used, with both outlines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dermseg.evaluation.figure import Panel, draw_panel
from dermseg.inference.following import Comparison, Followed, Visit, lay_lesion
from dermseg.measure.align import lay
from dermseg.measure.change import Change
from dermseg.report.page import MINUS

_SIDE = 300


class VisitPicture(NamedTuple):
    """``uint8 (300, 300, 3)`` RGB, the photograph's name and date, and what there is to say of it."""

    image: NDArray[np.uint8]
    title: str
    words: str


def draw_visits(followed: Followed) -> Iterator[VisitPicture]:
    """A picture of each photograph that could be read."""
    against = {found.second: found for found in followed.comparisons}
    base = followed.comparisons[0].first if followed.comparisons else None
    for number, visit in enumerate(followed.visits):
        if visit.view is None or visit.lesion is None:
            continue
        found = against.get(number)
        first = None if base is None else followed.visits[base if found is None else found.first]
        panel, words = _panel(visit, first, found, number == base)
        if found is not None and found.first != base and first is not None:
            words = f"against {short_name(first, followed)}: {words}"
        taken = visit.photograph.taken
        title = short_name(visit, followed) + (f", {taken.isoformat()}" if taken else "")
        yield VisitPicture(draw_panel(panel, _SIDE), title, words)


def signed_percent(value: float) -> str:
    """A relative change in per cent, with its sign."""
    return f"{100 * value:+z.1f} %".replace("-", MINUS)


def signed(value: float) -> str:
    """A difference as a whole number with its sign."""
    return f"{value:+z.0f}".replace("-", MINUS)


def change_words(change: Change) -> str:
    """A change as a sentence."""
    if change.area is None:
        return "; ".join(change.notes)
    words = f"area {signed_percent(change.area)}"
    if change.area_range is not None:
        low, high = change.area_range
        words += f" ({signed_percent(low)} to {signed_percent(high)})"
    if change.exceeds:
        words += ", more than photographs of an unchanged lesion differ"
    return "; ".join([words, *change.notes])


def short_name(visit: Visit, followed: Followed) -> str:
    """A photograph's name without its folders, where another of the lesion is not called the same."""
    names = [one.photograph.image.name for one in (visit, *followed.visits)]
    own, *all_of_them = (re.split(r"[/\\!]", name)[-1] for name in names)
    return own if all_of_them.count(own) == 1 else names[0]


def _panel(visit: Visit, first: Visit | None, found: Comparison | None, is_base: bool) -> tuple[Panel, str]:
    assert visit.view is not None and visit.lesion is not None
    nothing = np.zeros_like(visit.lesion)
    if found is None or first is None:
        words = (_whose(visit) if visit.status == "ok" else "no lesion found") + _doubts(visit)
        if is_base or first is None:
            return Panel(visit.view, nothing, visit.lesion, "", ""), words
        return Panel(visit.view, visit.lesion, nothing, "", ""), words
    words = change_words(found.change)
    if doubts := _doubts(visit):
        words += f"; verdict {visit.verdict}{doubts}"
    if found.alignment is None:
        return Panel(visit.view, visit.lesion, nothing, "", ""), words
    assert first.marks is not None and visit.marks is not None and first.lesion is not None
    sizes = (first.marks.size, visit.marks.size)
    laid = lay(visit.view, found.alignment, sizes, first.lesion.shape[:2])
    outline = lay_lesion(first, visit, found.alignment)
    return Panel(laid, outline, first.lesion, "", ""), words


def _whose(visit: Visit) -> str:
    """The gate's verdict on the outline; a person's has none, nor has that of a model without a gate."""
    if visit.photograph.mask is not None:
        return "outline by a person"
    return f"verdict {visit.verdict}" if visit.verdict else "outline by the model"


def _doubts(visit: Visit) -> str:
    """Why the gate does not accept a photograph; what is told of its change rests on that outline."""
    return "" if visit.verdict in (None, "accept") else f": {visit.message}"
