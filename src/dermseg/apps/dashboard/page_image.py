"""One image: its outline, how sure the model is, and measurements."""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dermseg.apps.dashboard import doubts
from dermseg.apps.dashboard.calibration import spacing_from_points
from dermseg.apps.dashboard.looking import Look, look_at, outline
from dermseg.apps.dashboard.measures import character_rows, lesion_rows, measurement_rows
from dermseg.apps.dashboard.pictures import Pixels, colour_scale, draw_map, draw_result
from dermseg.apps.dashboard.samples import SAMPLES, sample
from dermseg.apps.dashboard.settings import current
from dermseg.apps.dashboard.shared import (
    ask_files,
    choose_model,
    draw_verdict,
    get_model,
    plain,
    show_image,
    told,
)
from dermseg.apps.dashboard.uploads import (
    Place,
    Upload,
    fingerprint,
    image_key,
    label_places,
    list_images,
    read_place,
)
from dermseg.apps.dashboard.viewer import show_pictures
from dermseg.errors import UsageError
from dermseg.images import encode_mask
from dermseg.inference.predictor import Model
from dermseg.inference.result import Result
from dermseg.measure.geometry import measure_lesions, measure_mask
from dermseg.uncertainty.margins import DEFAULT_ALPHA, draw_margins, no_margins, trace_margins

OUTLINE, PROBABILITY, UNCERTAINTY, GRAD_CAM = "Outline", "Probability", "Uncertainty", "Grad-CAM"


def draw() -> None:
    """Draw the page."""
    with st.sidebar:
        name = choose_model(key="image_model")
    with told(name):
        model = get_model(name)
    start = min(max(round(model.card.postprocessing.threshold, 2), 0.01), 0.99)
    with st.sidebar:
        choice = st.container()  # above the files: those of many fill a laptop's screen
        uploads, place, messages = _chosen(ask_files("Images", key="image_files", many=True), choice)
        st.divider()
        threshold = st.slider(
            "Threshold",
            0.01,
            0.99,
            start,
            0.01,
            key=f"threshold {name}",
            help="Lesion is where the probability is at least this. Starts at the model's own value.",
        )
        every = st.toggle("All lesions", help="Keep every lesion, not only the largest.")
        line = st.toggle("Outline", value=True)
        fill = st.slider("Fill", 0, 100, 0, 5, format="%d %%", help="Opacity of the lesion's filling.")
    for message in messages:
        st.error(plain(message), icon=":material/error:")
    if place is None:
        if not messages:
            _draw_welcome()
        return
    key, look = _seen(model, name, uploads, place)
    own = threshold == start  # the slider's step is coarser than a fitted threshold: it stands for that
    result = outline(model, look, threshold=None if own else threshold, lesions="all" if every else None)
    left, right = st.columns([3, 2], gap="large")
    with left:
        spacing = _draw_picture(model, name, look, result, key, line=line, fill=fill / 100)
    with right:
        _draw_facts(model, look, result, spacing)


def _draw_welcome() -> None:
    st.title("Find the lesion")
    st.markdown(
        "Drop photographs into the field on the left (on a phone, behind the arrows at the top), or start "
        "with one of these drawn images."
    )
    for column, name in zip(st.columns(len(SAMPLES)), SAMPLES, strict=True):
        with column:
            show_image(sample(name).data, name)
            if st.button(name, key=f"sample {name}", width="stretch"):
                st.session_state["sample"] = name
                st.rerun()


def _chosen(uploads: list[Upload], choice: DeltaGenerator) -> tuple[list[Upload], Place | None, list[str]]:
    """What was dropped or the sample, the image chosen in it, and what is wrong with its zips."""
    if uploads:
        st.session_state.pop("sample", None)
        places, messages = _listed(uploads)
        place = places[0] if places else None
        if len(places) > 1:
            if "place" not in st.session_state:  # Streamlit forgets it when the page is left
                last = st.session_state.get("last image")
                known = (place for place in places if image_key(uploads, place) == last)
                st.session_state["place"] = next(known, places[0])
            labels = label_places(places)
            place = choice.selectbox("Image", places, format_func=labels.__getitem__, key="place")
        return uploads, place, messages
    if "sample" in st.session_state:
        name = st.session_state["sample"]
        if st.button("Close the sample", width="stretch"):
            del st.session_state["sample"]
            st.rerun()
        chosen = sample(name)
        return [chosen], Place(chosen.name, 0), []
    for old in ("look", "listing"):
        st.session_state.pop(old, None)
    return [], None, []


def _listed(uploads: list[Upload]) -> tuple[list[Place], list[str]]:
    """The images in the uploads and messages; zips are listed once."""
    key = fingerprint(uploads)
    stored = st.session_state.get("listing")
    if stored is None or stored[0] != key:
        stored = (key, *list_images(uploads))
        st.session_state["listing"] = stored
        st.session_state.pop("place", None)  # found again by its bytes: its number may be another now
    return stored[1], stored[2]


def _seen(model: Model, model_name: str, uploads: list[Upload], place: Place) -> tuple[str, Look]:
    """The image's key, and how the network sees it; from memory where neither image nor model has changed."""
    key = st.session_state["last image"] = image_key(uploads, place)
    stored = st.session_state.get("look")
    if stored is None or stored[0] != (model_name, key):
        st.session_state.pop("doubt", None)
        with told(place.label):
            data = read_place(uploads, place, current().max_upload_mb * 1_000_000)
            stored = ((model_name, key), look_at(model, place.name, data, current().max_pixels))
        st.session_state["look"] = stored
    return key, stored[1]


def _draw_picture(
    model: Model, model_name: str, look: Look, result: Result, key: str, *, line: bool, fill: float
) -> tuple[float, float] | None:
    """The picture with its choices; returns millimetres per pixel where they are known."""
    shown = [OUTLINE, PROBABILITY, UNCERTAINTY, *([GRAD_CAM] if doubts.explainable() else [])]
    kind = st.segmented_control("Show", shown, default=OUTLINE, key="show") or OUTLINE
    if not doubts.explainable():
        st.caption('Grad-CAM needs an extra: pip install "dermseg[train]"')
    layer = _choose_layer(kind, model, model_name, look, result)
    picture: Pixels = look.picture
    known = look.info.spacing_mm
    measuring = known is None and bool(st.session_state.get("measuring"))
    margins, trust, why = None, model.trust, no_margins(model.trust)
    if kind == OUTLINE and why:
        st.caption(why)
    elif kind == OUTLINE and trust is not None and st.toggle("Margins", key="margins", help=_MARGINS):
        margins = draw_margins(result.mask, trust, DEFAULT_ALPHA, spacing_mm=known)
        picture = trace_margins(picture, margins)
    if layer is None:
        picture = draw_result(picture, result.mask, labels=result.labels, outline=line, fill=fill)
    else:
        picture = draw_map(picture, layer.values, result.mask if line else None, peak=layer.peak)
    points = show_pictures(
        look.picture, picture, alt=f"{look.name}, {kind}", key=f"viewer {key}", measuring=measuring
    )
    if layer is not None:
        _draw_scale(layer)
    if margins is not None:
        words = doubts.margin_words(margins, result.threshold, model.card.postprocessing.threshold)
        if words is not None:
            st.caption(words)
    return known or _calibrate(look, points, key)


_MARGINS = "An outer and an inner line that were fitted on images with known outlines."


def _choose_layer(
    kind: str, model: Model, model_name: str, look: Look, result: Result
) -> doubts.Layer | None:
    if kind == PROBABILITY:
        return doubts.Layer(look.probability, 1.0, "Probability of lesion")
    if kind == UNCERTAINTY:
        name = st.segmented_control("Map", list(doubts.MAPS), default="Entropy", key="map") or "Entropy"
        if "doubt" not in st.session_state:
            with st.spinner("Asking the model several times …"):
                st.session_state["doubt"] = doubts.doubt(model, look)
        maps, how = st.session_state["doubt"]
        return doubts.uncertainty_layer(maps, name, how)
    if kind == GRAD_CAM:
        from dermseg.explain.network import default_layer

        with told(model_name), st.spinner("Loading the network for gradients …"):
            network = _network(model_name, model)
        names = doubts.layer_names(network)
        name = st.selectbox("Layer", names, index=names.index(default_layer(names)), key="layer")
        return doubts.grad_cam_layer(network, look, result, name)
    return None


@st.cache_resource(show_spinner=False, max_entries=2)
def _network(name: str, _model: Model) -> Any:
    return doubts.open_network(_model)


def _draw_scale(layer: doubts.Layer) -> None:
    if layer.empty:
        st.info("The map is empty: nothing in it is above 0.")
        return
    show_image(colour_scale(), f"Scale of colours from 0 to {layer.peak:.3g}")
    st.caption(f"{layer.caption}. Colours run from 0 (clear) to {layer.peak:.3g} (yellow).")


def _calibrate(look: Look, points: list[tuple[float, float]], key: str) -> tuple[float, float] | None:
    """Two clicks on a ruler; None until they are made. Points and distance are those of one image, `key`."""
    if not st.toggle("Set the scale on a ruler", key="measuring"):
        return None
    label = "Distance between the two points (mm)"
    field = f"distance {key}"
    if field not in st.session_state:  # while the switch is off Streamlit forgets it, and not the points
        image, known = st.session_state.get("distance", ("", 10.0))
        st.session_state[field] = known if image == key else 10.0
    distance = st.number_input(label, 0.1, 500.0, step=1.0, key=field)
    st.session_state["distance"] = (key, distance)
    if len(points) < 2:
        st.caption(f"Click two marks of a ruler in the picture: {len(points)} of 2 so far.")
        return None
    try:
        return spacing_from_points(points, float(distance), look.size)
    except UsageError as error:
        st.warning(f"{error.message}: {error.hint}")
        return None


def _draw_facts(model: Model, look: Look, result: Result, spacing: tuple[float, float] | None) -> None:
    st.subheader(plain(look.name), anchor=False)
    draw_verdict(result)
    if result.status == "no_lesion":
        st.warning("No lesion was found at this threshold.", icon=":material/search_off:")
    one, two = st.columns(2)
    judged = result.judgement
    one.metric(
        "Confidence" if judged is None else "Expected Dice",
        f"{result.confidence:.2f}",
        help="How clearly the outline divides the probability map; 1 is a sharp step."
        if judged is None
        else f"90 of 100 such outlines reach {judged.low:.2f} to {judged.high:.2f}.",
    )
    two.metric("Lesion", f"{100 * result.area_fraction:.1f} %", help="Share of the image.")
    rows = (
        measurement_rows(measure_mask(result.mask, spacing))
        if result.labels is None
        else lesion_rows(measure_lesions(result.labels, spacing))
    )
    st.dataframe(rows, hide_index=True, width="stretch")
    if spacing is not None:
        st.caption(f"1 pixel is {spacing[1]:.4f} mm wide.")
    else:
        st.caption("Millimetres appear when the scale is known: from DICOM, or set on a ruler.")
    if st.toggle("Shape and colour", help="As the photograph shows them: they say nothing about what it is."):
        st.dataframe(
            character_rows(look.picture, result.mask, result.labels, spacing),
            hide_index=True,
            width="stretch",
        )
    st.download_button(
        "Mask (PNG)",
        encode_mask(result.mask),
        look.mask_name,
        "image/png",
        icon=":material/download:",
        on_click="ignore",
    )
    info = look.info
    notes = "".join(f"; {note}" for note in info.notes)
    st.caption(
        f"{info.format}, {info.width} x {info.height} pixels{notes}. Model {model.card.name} "
        f"{model.card.version}, threshold {result.threshold:.2f}."
    )
