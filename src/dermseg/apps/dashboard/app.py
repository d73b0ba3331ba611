"""The pages and what they share."""

from __future__ import annotations

import numpy as np
import streamlit as st
from PIL import Image

from dermseg.apps.dashboard import page_batch, page_compare, page_follow, page_image, page_model, page_results
from dermseg.version import __version__

PAGES = (
    (page_image.draw, "One image", ":material/image:", "image"),
    (page_batch.draw, "Many images", ":material/photo_library:", "batch"),
    (page_follow.draw, "Follow", ":material/timeline:", "follow"),
    (page_compare.draw, "Compare", ":material/compare:", "compare"),
    (page_results.draw, "Results", ":material/monitoring:", "results"),
    (page_model.draw, "Model", ":material/info:", "model"),
)


CAPTION = (
    "For research; not a medical device. Images stay in this program's memory and are gone when you close "
    "the page."
)
# A phone hides the side bar.
PHONE = (
    f'<p class="phone" style="font-size: .875rem; margin: 0">{CAPTION}</p>'
    "<style>@media (min-width: 768px) { .phone { display: none; } }</style>"
)
# Streamlit's letters are white on the dark theme's light blue, too.
BUTTONS = '<style>[data-testid="stBaseButton-primary"] { color: light-dark(#fff, #0e1116); }</style>'


def favicon() -> Image.Image:
    """A dark spot on skin; Streamlit's own icons for the tab are fetched from the network."""
    y, x = np.mgrid[-32:32, -32:32]
    far = np.hypot(x, y)
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[far < 31] = (224, 172, 145, 255)
    picture[far < 17] = (92, 51, 40, 255)
    return Image.fromarray(picture)


def main() -> None:
    """Draw the page that is chosen."""
    st.set_page_config(page_title="dermseg", page_icon=favicon(), layout="wide")
    pages = [
        st.Page(draw, title=title, icon=icon, url_path=path, default=number == 0)
        for number, (draw, title, icon, path) in enumerate(PAGES)
    ]
    chosen = st.navigation(pages)
    # Before the page: one that ends with a message, or is still at work, has the caption too.
    st.sidebar.caption(f"dermseg {__version__}. {CAPTION}")
    st.html(PHONE + BUTTONS)
    chosen.run()
