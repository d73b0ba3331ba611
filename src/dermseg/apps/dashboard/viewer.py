"""The picture on the page: before and after with a divider, and two clicks for a ruler."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Any

import streamlit as st

from dermseg.apps.dashboard.calibration import Point
from dermseg.apps.dashboard.pictures import Pixels, data_url

_HTML = (
    '<div class="viewer"><div class="stage"><img class="before" alt="photograph"><img class="after">'
    '<div class="handle"></div><svg></svg></div>'
    '<input type="range" min="0" max="100" value="0" aria-label="Divider between photograph and result">'
    "</div>"
)


@lru_cache(maxsize=1)
def _component() -> Any:
    folder = resources.files("dermseg.apps.dashboard")
    return st.components.v2.component(
        "dermseg_viewer",
        html=_HTML,
        css=(folder / "viewer.css").read_text("utf-8"),
        js=(folder / "viewer.js").read_text("utf-8"),
    )


def show_pictures(
    before: Pixels, after: Pixels, *, alt: str, key: str, measuring: bool = False
) -> list[Point]:
    """Draw two pictures of one size; return the points clicked while `measuring`, as shares (x, y)."""
    stored = st.session_state.get(key) or {}
    points = [(float(x), float(y)) for x, y in (stored.get("points") or [])]
    data = {
        "before": data_url(before),
        "after": data_url(after),
        "alt": alt,
        "aspect": before.shape[1] / before.shape[0],
        "points": points if measuring else None,
    }
    result = _component()(data=data, key=key, default={"points": []}, on_points_change=lambda: None)
    return [(float(x), float(y)) for x, y in (result.points or [])]
