"""A bundle on disk: written whole beside its place and moved in, or given something more."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dermseg.errors import ModelError, UsageError
from dermseg.files import atomic_write, check_writable
from dermseg.inference.bundle import Bundle, load_bundle
from dermseg.inference.card import CARD_NAME, Attachment, Metric, ModelCard


def check_output(output: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that holds something else, and a bundle unless it may be replaced.

    Raises
    ------
    UsageError
        ``output`` exists and is not a bundle, or is one and ``overwrite`` is off, or holds other files too;
        or the program runs in it or below, or it is mounted there, so that it cannot be replaced; or it
        cannot be written, which is better known before the work than after it.
    """
    if Path.cwd().is_relative_to(output.resolve()):
        raise UsageError(
            "a bundle cannot be written in place of the folder that you are in",
            file=output,
            hint="name a folder that is made anew: -o my-bundle",
        )
    if output.exists() and not (_is_empty(output) or (output.is_dir() and (output / CARD_NAME).exists())):
        raise UsageError("there is something that is not a bundle", file=output, hint="choose another -o")
    if (output / CARD_NAME).exists() and not overwrite:
        raise UsageError("there is a bundle already", file=output, hint="another -o, or --overwrite")
    if (output / CARD_NAME).exists() and (foreign := _foreign(output)):
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise UsageError(
            f"the folder holds files that are no part of the bundle: {shown}",
            file=output,
            hint="the whole folder is replaced: move them away, or choose another -o",
        )
    check_writable(output if _is_empty(output) else output.parent)
    if os.path.ismount(output) and not _is_empty(output):
        raise UsageError(
            "a bundle cannot be replaced where a disk or volume is mounted",
            file=output,
            hint="remove its files first, or name a folder in it with -o",
        )


def _is_empty(output: Path) -> bool:
    """Whether it is a folder with nothing in it."""
    return output.is_dir() and not any(output.iterdir())


def _foreign(output: Path) -> list[str]:
    """What lies in the folder of a bundle and is not named in its card."""
    own = {CARD_NAME}
    with suppress(ModelError):  # of a damaged card nothing is known
        card = load_bundle(output).card
        own |= {part.file for variant in card.variants.values() for part in variant.files}
        own |= {part.file for part in card.attachments.values()}
    return sorted(path.name for path in output.iterdir() if path.name not in own)


def write_bundle(output: Path, card: ModelCard, files: dict[str, bytes]) -> None:
    """Write a bundle folder beside its place and move it in, replacing an older one.

    A folder that is there and empty is filled: it may be a mounted one, whose place nothing can take.
    """
    fill = _is_empty(output)
    place = output if fill else output.parent
    place.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=place))
    try:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        (temporary / CARD_NAME).write_text(card.to_json(), encoding="utf-8")
        temporary.chmod(0o755)
        if fill:
            for name in (*files, CARD_NAME):  # the card last: without it there is no bundle
                (temporary / name).replace(output / name)
        elif output.exists():
            old = output.with_name(f".{output.name}-old")
            shutil.rmtree(old, ignore_errors=True)
            output.replace(old)
            temporary.replace(output)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def add_metrics(output: Path, card: ModelCard, metrics: Sequence[Metric]) -> ModelCard:
    """The card with what the model reached, written back into its bundle."""
    return write_card(output, card.model_copy(update={"metrics": list(metrics)}))


def open_folder(path: Path) -> Bundle:
    """A bundle that can be changed.

    Raises
    ------
    UsageError
        It is a zip, or the name of a bundle inside the package.
    """
    bundle = load_bundle(path)
    if not path.exists():  # found by its name, and everybody who uses the package would have another model
        hint = f"copy its folder ({bundle.path}) and give the copy"
        raise UsageError(f"'{path}' belongs to the package and is not changed", hint=hint)
    if not bundle.path.is_dir():
        raise UsageError("a zip cannot be changed", file=path, hint="unpack it and give the folder")
    return bundle


def attach(folder: Path, file: str, data: bytes, options: dict[str, Any] | None = None) -> Attachment:
    """Put a file beside the network; the card that names it is written afterwards."""
    atomic_write(folder / file, data)
    return Attachment(
        file=file, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), options=options or {}
    )


def add_attachment(bundle: Bundle, name: str, file: str, text: str) -> ModelCard:
    """Put a file into a bundle's folder under a name, in the place of an earlier one, and write its card."""
    attachments = {**bundle.card.attachments, name: attach(bundle.path, file, text.encode())}
    return write_card(bundle.path, bundle.card.model_copy(update={"attachments": attachments}))


def write_card(folder: Path, card: ModelCard) -> ModelCard:
    """Check a card that was changed, and put it in the place of the bundle's."""
    checked = ModelCard.model_validate(card.model_dump())
    atomic_write(folder / CARD_NAME, checked.to_json().encode())
    return checked
