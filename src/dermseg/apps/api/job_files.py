"""The files of a batch job: ``input.zip`` as it came, ``out`` while it runs, ``result.zip`` in the end."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from dermseg.files import sync_folder
from dermseg.images.find import find_images
from dermseg.images.roles import JOURNAL, tell_apart
from dermseg.images.sources import ImageSource
from dermseg.images.zips import close_zips
from dermseg.inference.outputs import LAYOUT

INPUT, OUT, RESULT = "input.zip", "out", "result.zip"
TRIES = "tries"  # see ``files.Tries``


def list_images(path: Path) -> list[ImageSource]:
    """The images of a job's zip as ``dermseg segment`` takes them: reference masks are left out."""
    return tell_apart(find_images([path])).photographs


def remove_files(folder: Path) -> None:
    """Remove a job's folder. While its zip is open, the disk keeps its bytes, and memory its directory."""
    close_zips()
    shutil.rmtree(folder, ignore_errors=True)


def pack_result(out: Path, result: Path) -> None:
    """Put what a batch wrote into a zip, in one move. Images are compressed already.

    The disk has it when this returns: what it was made of is removed.
    """
    temporary = result.with_name(f".{result.name}.tmp")
    pictures = {folder for folder, _ in LAYOUT.values()}
    with temporary.open("wb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for path in sorted(out.rglob("*")):
                name = path.relative_to(out)
                if path.is_file() and path.name != JOURNAL:
                    packed = zipfile.ZIP_STORED if name.parts[0] in pictures else zipfile.ZIP_DEFLATED
                    archive.write(path, name.as_posix(), compress_type=packed)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(result)
    sync_folder(result.parent)
