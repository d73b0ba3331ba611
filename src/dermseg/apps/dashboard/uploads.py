"""What people drop on the page: files and zips, and the images inside.

Uploads live in memory. They are put on disk only while a zip is listed or a batch runs, in a temporary folder
that is gone afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory

from dermseg.errors import UsageError
from dermseg.images import ImageSource, close_zips, find_images
from dermseg.images.names import UniqueNames, printable_name, shorten

MAX_LISTED = 500
_HOLDS = "a zip holds JPEG, PNG, TIFF, BMP, WebP or DICOM files"


@dataclass(frozen=True)
class Upload:
    """One file as it came: its bare name and its bytes."""

    name: str
    data: bytes = field(repr=False)

    @property
    def is_zip(self) -> bool:
        """Whether it holds further files."""
        return self.name.lower().endswith(".zip")


def fingerprint(uploads: Sequence[Upload]) -> tuple[tuple[str, int, int], ...]:
    """What tells these uploads from others, within this program."""
    return tuple((upload.name, len(upload.data), hash(upload.data)) for upload in uploads)


def label_places(places: Sequence[Place]) -> dict[Place, str]:
    """Labels that all differ: the browser answers with the label, so equal ones would all be the first."""
    labels: dict[Place, str] = {}
    names, taken = set[str](), {place.label for place in places}
    for place in places:
        label, number = place.label, 1
        while label in (taken if place.label in names else ()):
            number += 1
            label = f"{place.label} ({number})"
        names.add(place.label)
        taken.add(label)
        labels[place] = label
    return labels


def image_key(uploads: Sequence[Upload], place: Place) -> str:
    """What tells this image from others, those of one name included; further uploads leave it as it is."""
    return repr((*fingerprint([uploads[place.upload]]), place.name, place.entry))


def bare_name(name: str) -> str:
    """The last part of a name that a browser sent, whatever slashes it uses, such as this disk can take.

    Other systems take 255 letters, and this one 255 bytes, which are 85 Chinese letters.
    """
    last = printable_name(PureWindowsPath(name).name)
    return "image" if last in ("", ".", "..") else shorten(last)


def lay_out(uploads: Sequence[Upload], folder: Path) -> list[ImageSource]:
    """Write the uploads into `folder` and list the images in them, those inside zips included.

    A file that is no zip is listed whatever its name is: if it is no image, its row says so.

    Raises
    ------
    UsageError
        Nothing was uploaded, or none of the zips holds an image.
    """
    unique = UniqueNames()
    paths = []
    for upload in uploads:
        path = folder / unique.take(bare_name(upload.name))
        path.write_bytes(upload.data)
        paths.append(path)
    if not paths:
        raise UsageError("there are no files")
    try:
        return find_images(paths)
    except UsageError:  # its text has the temporary folder
        names = ", ".join(upload.name for upload in uploads)
        raise UsageError(f"there is no image in {names}", hint=_HOLDS) from None


@dataclass(frozen=True)
class Place:
    """Where an image is: the number of its upload, and its place inside where that is a zip."""

    name: str
    upload: int
    zip: str | None = None
    entry: int | None = None

    @property
    def label(self) -> str:
        """What people choose from a list."""
        own = self.zip in (None, self.name)  # the latter is a damaged zip
        return self.name if own else f"{self.zip}: {self.name}"


def list_images(uploads: Sequence[Upload], limit: int | None = MAX_LISTED) -> tuple[list[Place], list[str]]:
    """The images in the uploads, `limit` of each zip, and a message for each zip that cannot be used."""
    places: list[Place] = []
    messages: list[str] = []
    for number, upload in enumerate(uploads):
        if not upload.is_zip:
            places.append(Place(bare_name(upload.name), number))
            continue
        try:
            with TemporaryDirectory(prefix="dermseg-") as folder:
                try:
                    sources = lay_out([upload], Path(folder))
                finally:
                    close_zips()
        except UsageError as error:
            messages.append(error.reason)
            continue
        except OSError as error:  # no room for it on the disk, say
            messages.append(f"{upload.name}: cannot be looked into: {error.strerror or error}")
            continue
        places += [Place(s.name, number, bare_name(upload.name), s.entry) for s in sources[:limit]]
        if limit is not None and len(sources) > limit:
            messages.append(f"{upload.name}: the first {limit} of {len(sources)} images are listed")
    return places, messages


def read_place(uploads: Sequence[Upload], place: Place, max_bytes: int) -> bytes:
    """The bytes of one image.

    Raises
    ------
    ImageError
        The member of the zip is damaged or too large.
    UsageError
        The zip is no longer what it was.
    """
    upload = uploads[place.upload]
    if place.entry is None:
        return upload.data
    with TemporaryDirectory(prefix="dermseg-") as folder:
        try:
            for source in lay_out([upload], Path(folder)):
                if source.entry == place.entry:
                    return source.read_bytes(max_bytes)
        finally:
            close_zips()
    raise UsageError(f"the zip has no image '{place.name}'")
