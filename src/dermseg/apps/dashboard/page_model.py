"""The card of a model."""

from __future__ import annotations

import streamlit as st

from dermseg.apps.dashboard.shared import choose_model, told
from dermseg.inference.bundle import load_bundle
from dermseg.report.model_card import render_model_card


def draw() -> None:
    """Draw the page."""
    name = choose_model(key="card_model")
    with told(name):
        card = render_model_card(load_bundle(name).card)
        st.markdown(card.replace("![", "!\\["))  # a picture would be fetched from wherever a card says
