"""Photographs of one lesion, followed: the same comparison as ``dermseg track``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from dermseg.apps.dashboard.uploads import Upload, lay_out
from dermseg.errors import UsageError
from dermseg.images import close_zips, encode_jpeg
from dermseg.images.roles import tell_apart
from dermseg.inference.following import Comparison, Followed, Photograph, Visit, follow
from dermseg.inference.predictor import Model
from dermseg.report.following import FollowingPage
from dermseg.report.visit_pictures import draw_visits, signed, signed_percent


@dataclass(frozen=True)
class Series:
    """What is left of the photographs when they are compared.

    Attributes
    ----------
    rows
        A row for each photograph, as the page's table shows it.
    failures
        Photographs that cannot be read, with the reason.
    pictures
        JPEG, title and words of each photograph that can.
    page
        ``report.html``.
    """

    rows: list[dict[str, str]]
    failures: list[str]
    pictures: list[tuple[bytes, str, str]] = field(repr=False)
    page: bytes = field(repr=False)


def follow_uploads(
    model: Model,
    uploads: Sequence[Upload],
    spacing_mm: float | None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Series:
    """Compare photographs of one lesion, in the order of their names.

    Parameters
    ----------
    spacing_mm
        Millimetres between pixel centres, of all photographs alike; None takes what the files know.
    progress
        Called with how many are done, and of how many.

    Raises
    ------
    UsageError
        Fewer than two photographs.
    """
    spacing = None if spacing_mm is None else (spacing_mm, spacing_mm)
    with TemporaryDirectory(prefix="dermseg-") as name:
        try:
            sources = tell_apart(lay_out(uploads, Path(name))).photographs
            if len(sources) < 2:
                raise UsageError("following a lesion takes two photographs or more")
            done = 0

            def listen() -> None:
                nonlocal done
                done += 1
                progress(done, len(sources))

            photographs = [Photograph(source, spacing_mm=spacing) for source in sources]
            followed = follow(model, photographs, progress=listen)
        finally:
            close_zips()
    page = FollowingPage()
    page.add(followed)
    return Series(
        rows=_rows(followed),
        failures=[f"{v.photograph.image.name}: {v.message}" for v in followed.visits if v.status == "failed"],
        pictures=[(encode_jpeg(image, 90), title, words) for image, title, words in draw_visits(followed)],
        page=page.render().encode(),
    )


def _rows(followed: Followed) -> list[dict[str, str]]:
    against = {found.second: found for found in followed.comparisons}
    return [_row(visit, against.get(number)) for number, visit in enumerate(followed.visits)]


def _row(visit: Visit, found: Comparison | None) -> dict[str, str]:
    reading = visit.reading
    size = "" if reading is None else f"{reading.area_px:,} px"
    if reading is not None and reading.area_mm2 is not None:
        size = f"{reading.area_mm2:.2f} mm²"
    row = {
        "Photograph": visit.photograph.image.name,
        "Verdict": visit.verdict or visit.status,
        "Area": size,
        "Change": "",
        "Range": "",
        "Diameter": "",
        "Scale by": "",
        "Contrast": "",
    }
    if found is not None and found.contrast is not None:
        row["Contrast"] = signed(found.contrast.change)
    if found is None or found.change.area is None or found.change.diameter is None:
        return row
    change = found.change
    row |= {
        "Change": signed_percent(found.change.area),
        "Diameter": signed_percent(found.change.diameter),
        "Scale by": "millimetres" if change.scale_from == "spacing" else "skin",
    }
    if change.area_range is not None:
        row["Range"] = " to ".join(map(signed_percent, change.area_range))
    return row
