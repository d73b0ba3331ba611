"""Whether a folder of annotations can be written, before a person's work depends on it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from dermseg.errors import DermsegError
from dermseg.labeling.editor.journal import ELSEWHERE


def why_unwritable(folder: Path, root: Path | None) -> DermsegError | None:
    """Why nothing can be saved in a folder, which may have to be made; None where something can.

    Tried, since permissions do not tell of read-only disks or shares.

    Parameters
    ----------
    root
        The folder or one above it that was there; gone, it is not made again.
    """
    probe = nearest(folder) / f".dermseg-{secrets.token_hex(6)}.tmp"
    try:
        if root is not None:
            root.stat()
        probe.open("xb").close()
        probe.unlink()
    except OSError as error:
        reason = f"nothing can be saved here: {error.strerror or error}"
        return DermsegError(reason, file=folder, hint=ELSEWHERE)
    return None


def nearest(folder: Path) -> Path:
    """The folder, or what is nearest above it of what is there."""
    return next((part for part in (folder, *folder.parents) if os.path.lexists(part)), folder)
