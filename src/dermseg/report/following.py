"""``report.html`` of ``dermseg track``: which lesions have changed, and the outlines laid on each other."""

from __future__ import annotations

from html import escape

import numpy as np

from dermseg.inference.following import Comparison, Followed, Visit
from dermseg.measure.change import ContrastChange
from dermseg.report import svg
from dermseg.report.page import DASH, Section, named, note, picture, plots, render_page, table
from dermseg.report.visit_pictures import draw_visits, short_name, signed, signed_percent
from dermseg.words import counted

MOST = 200  # lesions whose pictures are shown
_EXPLANATION = (
    "Of each lesion the last photograph that can be compared, against the first. The range says within what "
    "the change lies, by how much measurements of an unchanged lesion differ between two photographs in 9 of "
    "10 cases. A change that exceeds this is in bold; it may still come from the outline, so look at it. "
    "Contrast is how far the lesion's colour is from its skin's (delta E). Nothing here says what a change "
    "means."
)


class FollowingPage:
    """Takes lesions one after the other and keeps only what the page shows of them."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, list[str]]] = []
        self._pictured: list[tuple[float, int, str]] = []
        kinds = ("lesions", "photographs", "exceeds", "within", "unknown", "contrast")
        self._counts = dict.fromkeys(kinds, 0)

    def add(self, followed: Followed) -> None:
        """Put a lesion on the page."""
        last = _latest(followed)
        seen = "unknown" if last is None or last.change.exceeds is None else None
        self._counts[seen or ("exceeds" if last and last.change.exceeds else "within")] += 1
        self._counts["contrast"] += bool(last and last.contrast and last.contrast.exceeds)
        self._counts["lesions"] += 1
        self._counts["photographs"] += len(followed.visits)
        rank = _rank(last)
        self._rows.append((rank, _row(followed, last)))
        self._pictured.append((rank, self._counts["lesions"], _lesion(followed)))
        self._pictured.sort()
        del self._pictured[MOST:]

    def render(self) -> str:
        """The page as text."""
        # What has changed comes first: of a wide table a phone shows the first columns.
        changes, rest = ["area", "range", "contrast", "diameter"], ["scale by", "days", "photographs"]
        head = ["lesion", *changes, *rest, "remark"]
        rows = [row for _, row in sorted(self._rows, key=lambda row: row[0])]
        left_out = len(rows) - len(self._pictured)
        pictures = "".join(html for _, _, html in self._pictured)
        if left_out:
            pictures += note(f"{left_out:,} more lesions, with smaller changes, are in the tables only.")
        return render_page(
            "Lesions over time",
            self._lead(),
            [
                Section("Changes", note(_EXPLANATION) + table(head, rows, words=(5, 8))),
                Section("Photographs", _KEY + pictures),
            ],
        )

    def _lead(self) -> str:
        found = self._counts
        parts = [
            f"{found['exceeds']:,} changed by more than photographs of an unchanged lesion differ",
            f"{found['within']:,} did not",
        ]
        if found["unknown"]:
            parts.append(f"of {found['unknown']:,} it cannot be told")
        sizes, contrasts = ", ".join(parts), f"{found['contrast']:,} changed by more than that"
        lesions = counted(found["lesions"], "lesion", sep=",")
        return f"{lesions} in {found['photographs']:,} photographs. Size: {sizes}. Contrast: {contrasts}."


_KEY = (
    '<p class="key"><i class="reference"></i>first usable photograph '
    '<i class="prediction"></i>later photograph, laid on the first where that is possible</p>\n'
)


def _latest(followed: Followed) -> Comparison | None:
    """The comparison that says most: the last one that tells a change, else the last."""
    telling = [found for found in followed.comparisons if found.change.area is not None]
    return next(iter([*telling[-1:], *followed.comparisons[-1:]]), None)


def _rank(last: Comparison | None) -> float:
    """The largest changes of size first, those of contrast, what cannot be told, what has not changed."""
    if last is not None and not last.change.exceeds and last.contrast is not None and last.contrast.exceeds:
        return -0.5
    if last is None or last.change.area is None or last.change.exceeds is None:
        return 0.0
    size = abs(float(np.log1p(last.change.area)))
    return -1.0 - size if last.change.exceeds else 2.0 - min(1.0, size)


def _row(followed: Followed, last: Comparison | None) -> list[str]:
    """A lesion's line: its last photograph against its first."""
    name, photographs = named(followed.lesion or DASH), f"{len(followed.visits):,}"
    if last is None:
        return [name, *[DASH] * 6, photographs, _remark([_why_nothing(followed)])]
    change = last.change
    marked = ("<b>", "</b>") if change.exceeds else ("", "")
    ends = DASH
    if change.area_range is not None:
        ends = " to ".join(signed_percent(value) for value in change.area_range)
    return [
        name,
        DASH if change.area is None else signed_percent(change.area).join(marked),
        ends,
        _contrast(last.contrast),
        DASH if change.diameter is None else signed_percent(change.diameter),
        {"spacing": "millimetres", "skin": "skin", None: DASH}[change.scale_from],
        _days(followed.visits[last.first], followed.visits[last.second]),
        photographs,
        _remark([*change.notes, *_another_first(followed, last), *_not_compared(followed)]),
    ]


def _contrast(found: ContrastChange | None) -> str:
    if found is None:
        return DASH
    marked = ("<b>", "</b>") if found.exceeds else ("", "")
    return signed(found.change).join(marked)


def _another_first(followed: Followed, last: Comparison) -> list[str]:
    """Which photograph counts as the first, where it is not the first usable one."""
    if last.first == followed.comparisons[0].first:
        return []
    first = short_name(followed.visits[last.first], followed)
    return [f"against {first}, the first that shows all of the lesion"]


def _not_compared(followed: Followed) -> list[str]:
    """How many photographs have no part in the changes, where some have."""
    number = sum(found.change.area is None for found in followed.comparisons)
    number += sum(not visit.usable for visit in followed.visits)
    if not number or all(found.change.area is None for found in followed.comparisons):
        return []
    return [f"{number} of the photographs cannot be compared"]


def _remark(notes: list[str]) -> str:
    return f'<div class="remark">{escape("; ".join(notes))}</div>' if notes else ""


def _why_nothing(followed: Followed) -> str:
    if len(followed.visits) == 1:
        return "a single photograph"
    bad = [visit for visit in followed.visits if not visit.usable]
    words = {"failed": "cannot be read", "no_lesion": "no lesion found", "ok": "rejected"}
    return "; ".join(f"{short_name(visit, followed)}: {words[visit.status]}" for visit in bad)


def _days(first: Visit, second: Visit) -> str:
    one, two = first.photograph.taken, second.photograph.taken
    return DASH if one is None or two is None else f"{(two - one).days:,}"


def _lesion(followed: Followed) -> str:
    """Pictures of a lesion, and from the third photograph on its course; empty where none could be read."""
    shown = "".join(picture(*visit) for visit in draw_visits(followed))
    if not shown:
        return ""
    heading = f"<h3>{escape(followed.lesion)}</h3>\n" if followed.lesion else ""
    return f'{heading}<div class="gallery">{shown}</div>\n{_course(followed)}'


def _course(followed: Followed) -> str:
    """Area against time, the first usable photograph being 100 %; nothing for fewer than three points."""
    known = [found for found in followed.comparisons if found.change.area is not None]
    if len(known) < 2:
        return ""
    numbers = [known[0].first, *(found.second for found in known)]
    taken = [followed.visits[number].photograph.taken for number in numbers]
    dates = [one for one in taken if one is not None]
    dated = len(dates) == len(taken)
    xs = [float((one - dates[0]).days) for one in dates] if dated else [number + 1.0 for number in numbers]
    ys = [100.0, *(100 * (1 + (found.change.area or 0.0)) for found in known)]
    ranges = [found.change.area_range for found in known]
    ends = [None, *(None if one is None else (100 * (1 + one[0]), 100 * (1 + one[1])) for one in ranges)]
    reach = [*ys, *(value for one in ends if one is not None for value in one)]
    x = svg.Axis("days" if dated else "photograph", min(xs), max(*xs, min(xs) + 1), counts=True)
    room = 0.1 * (max(reach) - min(reach)) + 2
    y = svg.Axis("area, % of the first", max(0.0, min(reach) - room), max(reach) + room)
    title = f"Area of {followed.lesion or 'the lesion'} over time"
    plot = svg.curves([svg.Series("area", xs, ys, ends)], x, y, title)
    # Without its range a change of 2 % fills the picture.
    bars = " Bars: the range within which the change lies." if any(ends) else ""
    return plots((plot, f"Area over time.{bars}"))
