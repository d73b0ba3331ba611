"""What several pages draw: the choice of a model, uploads, verdicts, errors; and the models in memory."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from tempfile import gettempdir
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dermseg.apps.dashboard.pictures import Pixels
from dermseg.apps.dashboard.settings import current
from dermseg.apps.dashboard.uploads import Upload
from dermseg.errors import DermsegError
from dermseg.images import DICOM_EXTENSIONS
from dermseg.images.heic import heic_installed
from dermseg.images.sources import HEIC_EXTENSIONS, READ_EXTENSIONS
from dermseg.inference.bundle import load_bundle
from dermseg.inference.predictor import Model, load_model
from dermseg.inference.result import Result
from dermseg.inference.runtimes import choose_runtime
from dermseg.inference.stages import FULL_DISK, OutputError

# Without its extra HEIC is not among them: only then does an iPhone hand over its photographs as JPEG.
_HEIC = HEIC_EXTENSIONS if heic_installed() else ()
TYPES = sorted(ending.lstrip(".") for ending in (*READ_EXTENSIONS, *_HEIC, *DICOM_EXTENSIONS))
_BADGES = {
    "accept": ("Accept", ":material/check_circle:", "green"),
    "review": ("Review", ":material/visibility:", "orange"),
    "reject": ("Reject", ":material/block:", "red"),
}


@st.cache_resource(show_spinner="Loading the model …", max_entries=8)
def open_model(name: str, runtime: str) -> Model:
    """A model, loaded once for all visitors."""
    return load_model(name, runtime=runtime)


def get_model(name: str, images: int = 1) -> Model:
    """The model with the runtime that ``dermseg segment`` would take for so many images."""
    return open_model(name, choose_runtime(load_bundle(name), None, images))


def choose_model(label: str = "Model", *, key: str, index: int = 0) -> str:
    """A list of the models; no list where there is only one."""
    models = current().models
    if len(models) == 1:
        return models[0]
    return str(
        st.selectbox(label, models, index=min(index, len(models) - 1), key=key, format_func=short_name)
    )


def short_name(name: str) -> str:
    """A model as the list of models shows it: the end of its path, as much as tells it from the others.

    The browser answers with the label, so equal ones would all be the first.
    """
    own, others = PurePath(name).parts, [PurePath(m).parts for m in current().models if m != name]
    for many in range(1, len(own)):
        if all(other[-many:] != own[-many:] for other in others):
            return "/".join(own[-many:])
    return name


def plain(text: str) -> str:
    """A name or message where Streamlit takes Markdown: shown as it is, whatever signs are in it."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def show_image(data: bytes | Pixels, alt: str, *, caption: str | None = None) -> None:
    """A picture as wide as its column, or with a caption as it is; `alt` is for those who do not see it."""
    text = {"alt": alt} if "alt" in inspect.signature(st.image).parameters else {}  # not in older Streamlit
    width: Literal["stretch", "content"] = "stretch" if caption is None else "content"
    st.image(data, caption, width=width, **text)  # type: ignore[arg-type]


def ask_files(label: str, *, key: str, many: bool, zips: bool = True) -> list[Upload]:
    """The field where files are dropped; what it held is kept while another page is looked at."""
    kept, back = f"kept {key}", f"back {key}"
    if key not in st.session_state:  # Streamlit forgets the field's files when its page is left
        st.session_state[back] = kept in st.session_state
    limit = current().max_upload_mb
    given = st.file_uploader(
        label,
        type=[*TYPES, "zip"] if zips else TYPES,
        accept_multiple_files=many,
        key=key,
        help=f"JPEG, PNG, TIFF, BMP, WebP{', HEIC' if _HEIC else ''} or DICOM"
        f"{', or a zip of them' if zips else ''}; at most {limit} MB a file",
    )
    files = given if isinstance(given, list) else [] if given is None else [given]
    if files:
        st.session_state[back] = False
        st.session_state[kept] = [Upload(file.name, file.getvalue()) for file in files]
    elif not st.session_state[back]:
        st.session_state.pop(kept, None)
    uploads: list[Upload] = st.session_state.get(kept, [])
    if st.session_state[back]:
        names = ", ".join(upload.name for upload in uploads[:3]) + (" …" if len(uploads) > 3 else "")
        st.caption(f"Still here: {plain(names)} ({len(uploads)}). Other files take their place.")
        if st.button("Remove", key=f"remove {key}"):
            del st.session_state[kept]
            st.session_state[back] = False
            st.rerun()
    return uploads


@contextmanager
def told(name: str = "", bar: DeltaGenerator | None = None) -> Iterator[None]:
    """Turn what goes wrong with one file into one message and end the page there, without a progress bar.

    Not within the sidebar: a phone hides it, and the page would be blank.
    """
    try:
        yield
    except (DermsegError, OSError) as error:
        words = words_of(error)
        if words is None:
            raise
        if bar is not None:
            bar.empty()
        st.error(plain(f"{name + ': ' if name else ''}{words}"), icon=":material/error:")
        st.stop()


def words_of(error: DermsegError | OSError) -> str | None:
    """What people read of an error, and what to do; None for a system's error that nobody expects."""
    cause = error if isinstance(error, OSError) else error.__cause__
    # What is written here is temporary: the hint of a batch, to go on with --resume, is of no use.
    written = isinstance(error, OSError) or type(error) in (DermsegError, OutputError)
    if written and isinstance(cause, OSError) and cause.errno in FULL_DISK:
        return (
            f"temporary files cannot be written to {gettempdir()}: {cause.strerror}. "
            "Try: give fewer files at once, or make room there."
        )
    if isinstance(error, OSError):
        return None
    return f"{error.message}.{f' Try: {error.hint}.' if error.hint else ''}"


def draw_verdict(result: Result) -> None:
    """Confidence and verdict, with the reasons."""
    if result.verdict is None:
        st.caption("This model comes without a quality gate, so there is no verdict on the image.")
        return
    label, icon, colour = _BADGES[result.verdict.level]
    st.badge(label, icon=icon, color=colour)  # type: ignore[arg-type]
    for finding in result.verdict.findings:
        st.markdown(f"- {finding.reason.capitalize()}: {finding.remedy}")
