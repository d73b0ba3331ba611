"""One lesion in several photographs: what has changed, and the outlines laid on each other."""

from __future__ import annotations

import streamlit as st

from dermseg.apps.dashboard.shared import ask_files, choose_model, get_model, plain, show_image, told
from dermseg.apps.dashboard.uploads import fingerprint
from dermseg.apps.dashboard.visits import Series, follow_uploads

COLUMNS = 3


def draw() -> None:
    """Draw the page."""
    st.title("Follow")
    with st.sidebar:
        name = choose_model(key="follow_model")
        spacing = st.number_input(
            "Millimetres per pixel",
            min_value=0.0,
            value=None,
            step=0.001,
            format="%.4f",
            key="follow_spacing",
            help="Only if all photographs have one scale. Without it the skin around the lesion is compared.",
        )
    uploads = ask_files("Photographs of one lesion", key="follow_files", many=True)
    if not uploads:
        st.session_state.pop("followed", None)
        st.caption("Give two photographs of one lesion, or more; the order of their names is that of time.")
        return
    wanted = (fingerprint(uploads), name, spacing or None)
    stored = st.session_state.get("followed")
    if stored is None or stored[0] != wanted:
        bar = st.progress(0.0, "Loading the model …")

        def progress(done: int, total: int) -> None:
            bar.progress(done / total, f"{done} of {total} photographs")

        with told(bar=bar):
            series = follow_uploads(get_model(name), uploads, spacing or None, progress)
        bar.empty()
        stored = st.session_state["followed"] = (wanted, series)
    _draw_series(stored[1])


def _draw_series(series: Series) -> None:
    for failure in series.failures:
        st.error(plain(failure), icon=":material/error:")
    st.dataframe(series.rows, hide_index=True, width="stretch")
    st.caption(
        "The range says within what the change lies, by how much measurements of a lesion that is the same "
        "differ in 9 of 10 cases. Contrast: how much more the lesion stands out from its skin than in the "
        "first usable photograph, ΔE. Nothing here says what a change means."
    )
    for start in range(0, len(series.pictures), COLUMNS):
        shown = series.pictures[start : start + COLUMNS]
        for column, (picture, title, words) in zip(st.columns(COLUMNS), shown, strict=False):
            with column:
                show_image(picture, f"{title} with outlines")
                st.caption(f"{plain(title)}  \n{plain(words)}")
    st.caption("Cyan: the first usable photograph. Yellow: another one, laid on it where that is possible.")
    st.download_button(
        "Report (HTML)", series.page, "dermseg-follow.html", "text/html",
        icon=":material/description:", type="primary", on_click="ignore",
    )  # fmt: skip
