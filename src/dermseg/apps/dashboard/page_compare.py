"""Two outlines of one image: of two models, or of a model and a reference mask."""

from __future__ import annotations

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dermseg.apps.dashboard.comparing import compare_masks
from dermseg.apps.dashboard.looking import look_at, outline
from dermseg.apps.dashboard.pictures import draw_difference
from dermseg.apps.dashboard.settings import current
from dermseg.apps.dashboard.shared import ask_files, choose_model, get_model, told
from dermseg.apps.dashboard.viewer import show_pictures
from dermseg.images import load_mask

REFERENCE, MODEL = "Reference mask", "Second model"


def draw() -> None:
    """Draw the page."""
    st.title("Compare")
    with st.sidebar:
        name = choose_model(key="compare_model")
        against = MODEL
        second_name = name
        if len(current().models) > 1:
            against = st.radio("Against", [REFERENCE, MODEL], key="against")
            if against == MODEL:
                second_name = choose_model("Second model", key="compare_second", index=1)
        else:
            against = REFERENCE
            st.caption("Start with \\--model A \\--model B to compare two models.")
    left, right = st.columns(2)
    with left:
        images = ask_files("Image", key="compare_image", many=False, zips=False)
    masks = []
    if against == REFERENCE:
        with right:
            masks = ask_files("Reference mask", key="compare_mask", many=False, zips=False)
    if not images or (against == REFERENCE and not masks):
        what = "an image and its reference mask" if against == REFERENCE else "an image"
        st.caption(f"Give {what}.")
        return
    image = images[0]
    with told(image.name):
        model = get_model(name)
        look = look_at(model, image.name, image.data, current().max_pixels)
    first = outline(model, look).mask
    second: NDArray[np.bool_]
    if against == REFERENCE:
        with told(masks[0].name):
            second = load_mask(masks[0].data, size=look.size)
    else:
        with told(image.name):
            other = get_model(second_name)
            second = outline(other, look_at(other, image.name, image.data, current().max_pixels)).mask
    agreement = compare_masks(first, second)
    label = "reference" if against == REFERENCE else "second model"
    values = {
        "Dice": f"{agreement.dice:.3f}",
        "Jaccard": f"{agreement.jaccard:.3f}",
        "Only the model" if against == REFERENCE else "Only the first": f"{100 * agreement.only_first:.1f} %",
        f"Only the {label}": f"{100 * agreement.only_second:.1f} %",
    }
    for column, (title, value) in zip(st.columns(4), values.items(), strict=True):
        column.metric(title, value)
    picture = draw_difference(look.picture, first, second)
    show_pictures(look.picture, picture, alt="both outlines", key="compare_viewer")
    st.caption(f"Orange: only the model found it. Blue: only the {label} has it. Percent: of the image.")
