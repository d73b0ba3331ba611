"""The page on lesions over time."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date

import numpy as np

from dermseg.images.sources import as_source
from dermseg.inference.following import Comparison, Followed, Photograph, Visit
from dermseg.measure.change import Change, ContrastChange
from dermseg.report.following import FollowingPage


def test_a_course_shows_the_range_of_each_change() -> None:
    """Without it a change of 2 %, far below what can be told, fills the picture."""
    view = np.full((30, 40, 3), 180, np.uint8)
    photographs = [Photograph(as_source(f"{day}.jpg"), "arm", date(2026, 1, day)) for day in (1, 2, 3)]
    visits = tuple(Visit(one, "ok", view=view, lesion=np.zeros((30, 40), bool)) for one in photographs)
    changes = [Change("skin", 1.0, area, 0.0, ends) for area, ends in ((-0.02, (-0.12, 0.08)), (0.01, None))]
    comparisons = tuple(Comparison(0, n, change, None, None) for n, change in enumerate(changes, start=1))
    page = FollowingPage()
    page.add(Followed("arm", visits, comparisons))
    unread = Photograph(as_source("x.jpg"), "leg", None)
    page.add(Followed("leg", (Visit(unread, "failed"), Visit(unread, "failed")), ()))
    html = page.render()
    assert re.findall("<h3>(.*?)</h3>", html) == ["arm"], "no heading over nothing"
    lines = re.findall(r'<polyline points="([^"]+)"', html)
    across = [line for line in lines if len({point.split(",")[0] for point in line.split()}) == 1]
    assert len(lines) == 2 and len(across) == 1
    assert "Bars: the range" in html and ">90<" in html


def test_a_lesion_that_has_changed_in_contrast_only_is_told_first() -> None:
    """The page's first line said that nothing had changed, and a phone showed no change at all."""
    view, nothing = np.full((30, 40, 3), 180, np.uint8), np.zeros((30, 40), bool)
    visits = tuple(Visit(Photograph(as_source(f"{n}.jpg")), "ok", view=view, lesion=nothing) for n in (1, 2))
    size, contrast = (
        Change("skin", 1.0, 0.05, 0.02, (-0.1, 0.2), exceeds=False),
        ContrastChange(-15, None, True),
    )
    page = FollowingPage()
    page.add(Followed("arm", visits, (Comparison(0, 1, size, None, None, contrast),)))
    html = page.render()
    assert "Size: 0 changed by more than" in html and "1 did not. Contrast: 1 changed by more" in html
    assert re.findall("<th [^>]*>(.*?)</th>", html)[:3] == ["lesion", "area", "range"]
    assert "<b>\u221215</b>" in html


def test_photographs_of_one_name_are_told_apart_by_their_folders() -> None:
    view, nothing = np.full((30, 40, 3), 180, np.uint8), np.zeros((30, 40), bool)
    shots = [Photograph(as_source(name)) for name in ("may/arm.jpg", "june/arm.jpg", "june/scale.jpg")]
    shots = [replace(one, image=replace(one.image, name=one.image.label)) for one in shots]
    visits = tuple(Visit(one, "no_lesion", view=view, lesion=nothing) for one in shots)
    page = FollowingPage()
    page.add(Followed("arm", visits, ()))
    html = page.render()
    titles = re.findall("<figcaption>(.*?)<br>", html)
    assert titles == ["may/arm.jpg", "june/arm.jpg", "scale.jpg"]
    assert "may/arm.jpg: no lesion found; june/arm.jpg: no lesion found; scale.jpg" in html
