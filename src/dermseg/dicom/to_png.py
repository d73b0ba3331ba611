"""DICOM photographs as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermseg.errors import DermsegError, UsageError
from dermseg.files import atomic_write, check_writable
from dermseg.images.load import load_image
from dermseg.images.overlay import encode_png
from dermseg.images.sources import ImageSource
from dermseg.inference.outputs import plan_stems


@dataclass(frozen=True)
class Converted:
    """One file: where the picture is, its size and spacing, or why there is none."""

    file: str
    png: str | None = None
    width: int | None = None
    height: int | None = None
    spacing_mm: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None


def write_pngs(
    sources: Sequence[ImageSource],
    out: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Converted]:
    """Write ``<out>/<relative path>/<stem>.png`` for each source.

    Parameters
    ----------
    progress
        Called with the number of files done since the last call.

    Raises
    ------
    UsageError
        A file is there already, or `out` cannot be written.
    """
    check_writable(out)
    stems = plan_stems([source.name for source in sources])
    there = [f"{stem}.png" for stem in stems.values() if (out / f"{stem}.png").exists()]
    if there and not overwrite:
        raise UsageError(
            f"{len(there)} files are there already, such as {there[0]}", file=out, hint="--overwrite"
        )
    done = []
    for source in sources:
        done.append(_convert(source, out, f"{stems[source.name]}.png"))
        progress(1)
    return done


def _convert(source: ImageSource, out: Path, name: str) -> Converted:
    try:
        loaded = load_image(source, allow_drawn_on=True)
    except DermsegError as error:
        return Converted(source.name, error=error.reason)
    atomic_write(out / name, encode_png(loaded.pixels))
    info = loaded.info
    return Converted(source.name, name, info.width, info.height, info.spacing_mm, info.notes)
