"""Many images: progress, a gallery, and everything as a zip."""

from __future__ import annotations

import streamlit as st

from dermseg.apps.dashboard.findings import parse_table
from dermseg.apps.dashboard.many import (
    ORDERS,
    Finished,
    name_settings,
    segment_uploads,
    sort_entries,
    thumbnail,
)
from dermseg.apps.dashboard.settings import current
from dermseg.apps.dashboard.shared import (
    ask_files,
    choose_model,
    get_model,
    plain,
    short_name,
    show_image,
    told,
)
from dermseg.apps.dashboard.uploads import fingerprint, list_images
from dermseg.inference.journal import Entry
from dermseg.inference.options import BatchOptions

COLUMNS, PAGE, SHOWN_FAILURES = 5, 50, 5


def draw() -> None:
    """Draw the page."""
    st.title("Many images")
    with st.sidebar:
        name = choose_model(key="batch_model")
        every = st.toggle("All lesions", key="batch_every", help="Keep every lesion, not only the largest.")
        tta = st.toggle("Average over flips and turns", help="Steadier; up to 8 times the time.")
        doubt = st.toggle("Uncertainty maps", help="Also in the zip; needs a model with fitted margins.")
    uploads = ask_files("Images, or zips of images", key="batch_files", many=True)
    if not uploads:
        st.session_state.pop("finished", None)
        st.caption("What dermseg segment writes comes back as one zip: masks, overlays, table and report.")
        return
    options = BatchOptions(
        lesions="all" if every else "largest",
        tta=tta,
        uncertainty=doubt,
        max_megapixels=current().max_megapixels,
    )
    wanted = (fingerprint(uploads), name, options)
    if st.button("Segment", type="primary", icon=":material/play_arrow:"):
        running = st.empty()
        with running.container():
            bar = st.progress(0.0, "Loading the model …")
            st.caption("Another page or another setting ends it.")

        def progress(done: int, total: int, last: str) -> None:
            bar.progress(done / max(1, total), f"{done} of {total} images {plain(last)}")

        with told(bar=running):
            places, useless = list_images(uploads, limit=None)
            model = get_model(name, images=len(places))
            finished = segment_uploads(model, uploads, options, progress)
        running.empty()
        st.session_state["finished"] = (wanted, finished, useless)
    stored = st.session_state.get("finished")
    if stored is None:
        return
    made, finished, useless = stored
    if made == wanted:
        st.caption(f"Made with the model {plain(short_name(name))}: {name_settings(options)}.")
        for message in useless:
            st.warning(plain(message), icon=":material/folder_off:")
        _draw_finished(finished)
    elif made[0] == wanted[0]:
        st.info(
            f"The results at hand were made with the model {plain(short_name(made[1]))}: "
            f"{name_settings(made[2])}. Choose these again to see them, or press Segment for new ones."
        )


def _draw_finished(finished: Finished) -> None:
    counts = finished.counts
    facts = {"Images": counts["images"], "Lesion found": counts["ok"], "None found": counts["no_lesion"]}
    facts["Failed"] = counts["failed"]
    for column, (label, value) in zip(st.columns(4), facts.items(), strict=True):
        column.metric(label, value)
    if counts["review"] or counts["reject"]:
        st.caption(f"By their verdict {counts['review']} to review, {counts['reject']} rejected.")
    failed = [entry.row for entry in finished.entries if entry.row.status == "failed"]
    for row in failed[:SHOWN_FAILURES]:
        st.error(plain(f"{row.file}: {row.message}"), icon=":material/error:")
    if len(failed) > SHOWN_FAILURES:
        more = len(failed) - SHOWN_FAILURES
        st.error(f"... and {more} more, with their reasons in the table", icon=":material/error:")
    if finished.left_out:
        st.info(f"Left out, masks by their names: {plain(', '.join(finished.left_out[:5]))}")
    with st.container(horizontal=True):
        st.download_button(
            "Everything (ZIP)", finished.archive, "dermseg-results.zip", "application/zip",
            icon=":material/folder_zip:", type="primary", on_click="ignore",
        )  # fmt: skip
        st.download_button(
            "Table (CSV)", finished.table, "results.csv", "text/csv",
            icon=":material/table:", on_click="ignore",
        )  # fmt: skip
    gallery, table = st.tabs(["Gallery", "Table"])
    with gallery:
        order = st.selectbox("Order", ORDERS, key="order")
        _draw_gallery(sort_entries(finished.entries, order))
    with table:
        st.dataframe(parse_table(finished.table.decode()), hide_index=True, width="stretch")


def _draw_gallery(entries: list[Entry]) -> None:
    pages = -(-len(entries) // PAGE)
    page = st.number_input(f"Page, of {pages}", 1, pages, 1) if pages > 1 else 1
    shown = entries[(page - 1) * PAGE : page * PAGE]
    for start in range(0, len(shown), COLUMNS):
        for column, entry in zip(st.columns(COLUMNS), shown[start : start + COLUMNS], strict=False):
            with column:
                picture, row = thumbnail(entry), entry.row
                if picture is None:
                    st.caption(f":material/broken_image: {plain(row.file)}  \nfailed")
                    continue
                show_image(picture, f"{row.file} with its outline")
                facts = ["no lesion found"] if row.status == "no_lesion" else []
                facts += [] if row.confidence is None else [f"confidence {row.confidence:.2f}"]
                facts += [row.verdict] if row.verdict else []
                st.caption(f"{plain(row.file)}  \n{', '.join(facts)}")
