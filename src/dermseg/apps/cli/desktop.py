"""``dermseg desktop``: the annotation program."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dermseg.apps.cli.common import ModelOption, OptionalInputsArgument, new_app
from dermseg.errors import MissingExtraError, UsageError

app = new_app()

_LIBRARIES = (
    "sudo apt-get install libdbus-1-3 libegl1 libfontconfig1 libgl1 libglib2.0-0 libxcb-cursor0 "
    "libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libxkbcommon-x11-0"
)


@app.command()
def desktop(
    inputs: OptionalInputsArgument = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the annotations; default: beside the images."),
    ] = None,
    second: Annotated[
        Path | None, typer.Option("--second", help="Folder of another reader's annotations, to compare with.")
    ] = None,
    model: ModelOption = "default",
    camera: Annotated[
        str | None, typer.Option("--camera", help="Live picture: number of a camera, or a film.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="en or de; default: the system's.")
    ] = None,
) -> None:
    """Look at images, let the model propose outlines, correct them, save them as LabelMe JSON."""
    if language not in (None, "en", "de"):
        raise UsageError(f"--language '{language}' is not known", hint="en or de")
    if second is not None and not second.is_dir():  # else the window says that they have drawn nothing
        raise UsageError(
            f"--second '{second}' is no folder", hint="name that of another reader's annotations"
        )
    try:
        from dermseg.apps.desktop.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("PySide6", "shiboken6"):
            raise
        raise MissingExtraError("'dermseg desktop' (PySide6)", "desktop") from None
    except ImportError as error:  # a library of the system, such as libEGL.so.1
        raise UsageError(f"Qt cannot start: {error}", hint=_LIBRARIES) from None
    if sys.platform.startswith("linux") and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    ):
        raise UsageError(
            "no screen: neither DISPLAY nor WAYLAND_DISPLAY is set", hint="xvfb-run dermseg desktop"
        )
    _check_x11()

    from dermseg.inference.bundle import load_bundle

    load_bundle(model)  # a wrong name ends here, not in the window
    code = run(inputs or [], model=model, output=output, second=second, camera=camera, language=language)
    raise typer.Exit(code)


def _check_x11() -> None:
    """Load what opens windows under X11: where a library is missing, Qt would end the process itself."""
    if not sys.platform.startswith("linux") or os.environ.get("WAYLAND_DISPLAY"):
        return
    from PySide6.QtCore import QLibraryInfo

    plugin = Path(QLibraryInfo.path(QLibraryInfo.LibraryPath.PluginsPath), "platforms", "libqxcb.so")
    if os.environ.get("QT_QPA_PLATFORM", "xcb") != "xcb" or not plugin.is_file():
        return
    try:
        ctypes.CDLL(str(plugin))
    except OSError as error:
        raise UsageError(f"Qt cannot open a window: {error}", hint=_LIBRARIES) from None
