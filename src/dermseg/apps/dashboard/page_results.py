"""Results on disk: curves, tables and the images that went wrong."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from dermseg.apps.dashboard import findings
from dermseg.apps.dashboard.settings import current
from dermseg.apps.dashboard.shared import plain, show_image, told


def draw() -> None:
    """Draw the page."""
    st.title("Results")
    root = current().results
    if root is None:
        st.markdown(
            "Start with `dermseg dashboard --results FOLDER` to see the trainings, suites and "
            "evaluations below that folder."
        )
        return
    found = findings.find_results(root)
    if not found:
        st.info(f"There are no results below {plain(root.name)}.")
        return
    chosen = st.selectbox("Result", found, format_func=lambda item: item.label)
    with told(chosen.name), _readable(chosen.name):
        if chosen.kind == "training":
            _draw_training(chosen)
        elif chosen.kind == "suite":
            _draw_suite(chosen)
        else:
            _draw_evaluation(chosen)
        for picture in findings.pictures(chosen.path):
            show_image(picture.read_bytes(), f"{picture.name} of {chosen.name}", caption=picture.name)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """A file that is damaged, gone since it was listed, or another program's of that name is a message."""
    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError, TypeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is not what dermseg wrote"
        st.error(
            f"{plain(name)} cannot be read: {reason}. Make it again, or move it away, and reload the page.",
            icon=":material/error:",
        )


def _draw_training(chosen: findings.Found) -> None:
    curves = findings.read_curves(chosen.path)
    for kind, y, title in (("train", "loss", "Training loss"), ("val", "dice", "Validation Dice")):
        rows = [row for row in curves.get(kind, []) if y in row]
        if len(rows) > 1:  # one point is no line; the table below has it
            st.header(title, anchor=False)
            st.line_chart(rows, x="step", y=y)
    if not any(curves.values()):
        st.info("This training has written no figures yet.")
    if curves.get("val"):
        st.dataframe(curves["val"], hide_index=True, width="stretch")


def _draw_suite(chosen: findings.Found) -> None:
    st.header("Results", anchor=False)
    st.dataframe(findings.read_table(chosen.path / "results.csv"), hide_index=True, width="stretch")
    tests = chosen.path / "tests.csv"
    if tests.is_file():
        st.header("Paired differences", anchor=False)
        st.dataframe(findings.read_table(tests), hide_index=True, width="stretch")


def _draw_evaluation(chosen: findings.Found) -> None:
    left, right = st.columns(2)
    with left:
        st.header("Figures", anchor=False)
        st.dataframe(findings.read_summary(chosen.path), hide_index=True, width="stretch")
        st.caption("Means over images; low and high are the ends of their 95 % intervals.")
    with right:
        st.header("Worst images", anchor=False)
        st.dataframe(findings.worst_rows(chosen.path), hide_index=True, width="stretch")
    if failures := findings.not_scored(chosen.path):
        st.header("Not scored", anchor=False)
        st.dataframe(failures, hide_index=True, width="stretch")
        st.caption("These are in no figure.")
