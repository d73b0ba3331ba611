"""A bundle: a folder or zip with ``card.json`` and the files it names, each held to its sha256.

Design decisions:

- A model's bytes are hashed every time they are read and handed on in memory, so what runs is what was
  checked. 12 MB take 8 ms; a cache of hashes could be out of date.
- Zips are read in place. Only names that the card lists are looked up; nothing is unpacked.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from dermseg.errors import DermsegError, ModelError, UnknownModelError
from dermseg.inference.card import CARD_NAME, MAX_CARD_BYTES, ModelCard, StoredFile, read_card

DEFAULT = "default"
# Bundles that travel inside the package; each is a folder here.
BUNDLED = Path(__file__).resolve().parent.parent / "bundles"
_CARD_HINT = "give the folder or zip that 'dermseg export' wrote, with its card.json"
_RUN_WEIGHTS = "best.safetensors"  # of a run folder: training.checkpoint, which needs torch
# An ``external_data`` of an ONNX tensor (field 13) that names a file; the short form is fast to look for.
_LOCATION = b"\n\x08location"
_EXTERNAL = re.compile(rb"j[\x00-\xff]{1,2}" + _LOCATION)


@dataclass(frozen=True)
class Bundle:
    """A model ready for use, on disk.

    Parameters
    ----------
    path
        The folder or zip.
    card
        Its checked card.
    prefix
        Inside a zip: the folder that holds the card, with its slash, or empty.
    """

    path: Path
    card: ModelCard
    prefix: str = ""

    def read_model(self, variant: str | None = None) -> bytes:
        """The content of a variant's main file, after its size and sha256 have been checked.

        Raises
        ------
        ModelError
            No such variant, the file is missing, or it is not the file that the card describes; or it takes
            its weights from files that no hash covers: runtimes look for them in the working directory.
        """
        entry = self.card.variant(variant)
        data = self._checked(entry)
        if entry.format == "onnx" and _LOCATION in data and _EXTERNAL.search(data):
            raise ModelError(
                f"'{entry.file}' takes weights from another file, which the card has no sha256 of",
                file=self.path,
                hint="onnx.save(onnx.load('model.onnx'), 'whole.onnx') puts them inside; export that",
            )
        return data

    def read_weights(self, variant: str | None = None) -> bytes | None:
        """The second file of a variant that has one (the binary of an OpenVINO IR), checked likewise."""
        stored = self.card.variant(variant).weights
        return None if stored is None else self._checked(stored)

    def read_attachment(self, name: str) -> bytes:
        """A further file of the bundle, checked likewise.

        Raises
        ------
        ModelError
            The card names no such file, or it is not the file that the card describes.
        """
        if name not in self.card.attachments:
            raise ModelError(
                f"model '{self.card.name}' comes without '{name}'",
                file=self.path,
                hint=f"it has {sorted(self.card.attachments) or 'none'}",
            )
        return self._checked(self.card.attachments[name])

    def _checked(self, entry: StoredFile) -> bytes:
        data = _read(self.path, self.prefix + entry.file, entry.bytes)
        if len(data) != entry.bytes:
            raise ModelError(
                f"'{entry.file}' has {len(data)} bytes or more, its card says {entry.bytes}",
                file=self.path,
                hint="the bundle is damaged; fetch or export it again",
            )
        digest = hashlib.sha256(data).hexdigest()
        if digest != entry.sha256:
            raise ModelError(
                f"'{entry.file}' has sha256 {digest[:12]}..., its card says {entry.sha256[:12]}...",
                file=self.path,
                hint="the bundle is damaged or was changed; fetch or export it again",
            )
        return data

    def verify(self) -> dict[str, str]:
        """Check every variant; the name of each with ``ok`` or what is wrong with it."""
        return {name: _state(name, self.read_model, self.read_weights) for name in self.card.variants}

    def verify_attachments(self) -> dict[str, str]:
        """Check every further file; the name of each with ``ok`` or what is wrong with it."""
        return {name: _state(name, self.read_attachment) for name in self.card.attachments}


def _state(name: str, *reads: Callable[[str], object]) -> str:
    """``ok`` where all of it can be read, or what is wrong."""
    try:
        for read in reads:
            read(name)
    except ModelError as error:
        return error.message
    return "ok"


def load_bundle(name_or_path: str | PathLike[str] = DEFAULT) -> Bundle:
    """Open a bundle and check its card; model files are checked when they are read.

    Parameters
    ----------
    name_or_path
        The name of a bundle inside the package (``default``), or the path of a folder, of a zip, or of
        a ``card.json``.

    Raises
    ------
    UnknownModelError
        Nothing is there, or a training run that was not exported; or a name means two bundles.
    ModelError
        The card is missing or does not fit its schema.
    """
    path = find_bundle(name_or_path)
    if path.is_dir() and not (path / CARD_NAME).exists() and (path / _RUN_WEIGHTS).exists():
        raise UnknownModelError(
            "a training run is no bundle yet",
            file=path,
            hint=f"dermseg export {path} -o my-bundle, then give my-bundle",
        )
    prefix = "" if path.is_dir() else _zip_prefix(path)
    data = _read(path, prefix + CARD_NAME, MAX_CARD_BYTES)
    return Bundle(path, read_card(data, file=path / CARD_NAME if path.is_dir() else path), prefix)


def bundle_stamp(path: Path) -> tuple[int, ...]:
    """What changes when another bundle is put at a path: time, size and number of its card or zip.

    Empty where there is no such file.
    """
    try:
        status = (path / CARD_NAME if path.is_dir() else path).stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def find_bundle(name_or_path: str | PathLike[str]) -> Path:
    """The folder or zip that a name or path means; see ``load_bundle``.

    Raises
    ------
    UnknownModelError
        Nothing is there, or a bundle or run here has the name of one inside the package.
    """
    path = Path(name_or_path)
    if is_bundled_name(name_or_path):
        # A folder that happens to be called so (photographs, results) is not what --model default means.
        for content, kind in ((CARD_NAME, "a bundle"), (_RUN_WEIGHTS, "a training run")):
            if (path / content).exists():
                raise UnknownModelError(
                    f"'{name_or_path}' is a bundle inside the package, and the folder of that name here is "
                    f"{kind}",
                    hint=f"give ./{name_or_path} for the one here; rename it, or call dermseg from another "
                    "folder, for that of the package",
                )
        path = BUNDLED / path.name
    elif str(name_or_path) == path.name and not path.exists():
        path = BUNDLED / path.name
    if path.name == CARD_NAME:
        path = path.parent
    if not path.exists():
        inside = ", ".join(bundled_names()) or "none"
        raise UnknownModelError(
            f"there is no bundle '{name_or_path}'",
            hint=f"give a folder, a zip, or the name of one inside the package: {inside}",
        )
    return path


def is_bundled_name(name_or_path: str | PathLike[str]) -> bool:
    """Whether a text is the name of a bundle inside the package: ``default``, not ``./default``.

    A ``Path`` is a path, whatever it is called.
    """
    if not isinstance(name_or_path, str) or name_or_path != Path(name_or_path).name:
        return False
    return (BUNDLED / name_or_path / CARD_NAME).exists()


def bundled_names() -> list[str]:
    """Names of the bundles inside the package, ``default`` first."""
    names = [card.parent.name for card in BUNDLED.glob(f"*/{CARD_NAME}")]
    return sorted(names, key=lambda name: (name != DEFAULT, name))


def list_bundles() -> list[Bundle]:
    """The bundles inside the package whose cards can be read, ``default`` first."""
    bundles = []
    for name in bundled_names():
        try:
            bundles.append(load_bundle(BUNDLED / name))
        except DermsegError:
            continue  # `dermseg models verify` names it and says why
    return bundles


def _zip_prefix(path: Path) -> str:
    """Where the card lies in the zip: at its top, or in its only folder."""
    hint = "give a folder or zip that 'dermseg export' wrote; --onnx makes one of an ONNX file"
    if not path.is_file():  # a device would be read for ever, a named pipe waited for
        raise ModelError("not a folder and not a file", file=path, hint=hint)
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"not a folder and not a zip ({error})", file=path, hint=hint) from None
    if CARD_NAME in names:
        return ""
    nested = [n for n in names if n.count("/") == 1 and n.endswith(f"/{CARD_NAME}")]
    if len(nested) != 1:
        raise ModelError(f"the zip holds no {CARD_NAME}", file=path, hint=_CARD_HINT)
    return nested[0].removesuffix(CARD_NAME)


def _read(path: Path, name: str, limit: int) -> bytes:
    """At most ``limit + 1`` bytes of a file of the bundle, so that a bomb is never unpacked."""
    try:
        if path.is_dir():
            with (path / name).open("rb") as stream:
                return stream.read(limit + 1)
        with zipfile.ZipFile(path) as archive, archive.open(name) as member:
            return member.read(limit + 1)
    except (FileNotFoundError, KeyError):
        hint = _CARD_HINT if name == CARD_NAME else "a file is missing; fetch or export it again"
        raise ModelError(f"the bundle has no '{name}'", file=path, hint=hint) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"'{name}' cannot be read from the zip ({error})", file=path) from None
    except OSError as error:
        raise ModelError(f"'{name}' cannot be read: {error.strerror or error}", file=path) from None
