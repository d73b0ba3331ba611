"""Who made a DICOM object, from what: names, codes, and UIDs that follow from their causes.

Decisions
---------
- UIDs are derived, not drawn: the same image, model and options give the same UIDs. A result that is sent
  twice (after a crash, or because nobody knows whether the first one arrived) is then one object in the
  archive, and a client can ask whether it is there. Another version of dermseg gives others: it may write
  another result, of which an archive that has the first one would keep nothing.
- ``2.25.`` and a 128-bit number (PS3.5 B.2): no registered root is needed. The number is the beginning of a
  SHA-256 with the version and variant bits of a name-based UUID (RFC 9562, version 8).
- The lesion's tracking UID follows from the image and its number alone: another model's outline of the same
  lesion in the same image is tracked together with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from pydicom import Dataset

from dermseg.errors import ImageError
from dermseg.images.dicom import MANUFACTURER, class_name
from dermseg.version import __version__

ROOT = "2.25."
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")


def is_uid(text: str) -> bool:
    """Whether it has the form of a UID (PS3.5, 9.1): digits and dots, so a safe file name and no words."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def unquoted(text: str) -> str:
    """A message without what it quotes: libraries put values of headers and names of files there.

    >>> unquoted("invalid number: 'Doe^Jane'")
    "invalid number: '...'"
    """
    return _QUOTED.sub("'...'", text)


def derive_uid(*causes: str) -> str:
    """A UID that follows from its causes.

    >>> derive_uid("a", "b") == derive_uid("a", "b") != derive_uid("ab")
    True
    """
    digest = hashlib.sha256(json.dumps(causes).encode()).digest()
    return ROOT + str(uuid_bits(digest))


def uuid_bits(digest: bytes) -> int:
    """The first 128 bits of a digest as the number of a UUID, version 8."""
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    return number & ~(0b11 << 62) | 0b10 << 62


@dataclass(frozen=True)
class Origin:
    """What a result comes from.

    Parameters
    ----------
    image
        The data set of the photograph; its pixels are not looked at.
    model
        Name, version and hashes, of ``inference.options.describe_model``.
    options
        What else shapes the result: threshold, lesions, test-time augmentation.
    created
        Moment that is written into the objects. A job that is done again after a crash gives the same one.
    """

    image: Dataset
    model: Mapping[str, Any]
    options: Mapping[str, Any]
    created: datetime

    @cached_property
    def key(self) -> str:
        """Hash of the model and the options: with the image's UID it says whether work is done already."""
        return work_key(self.model, self.options)

    @property
    def image_uid(self) -> str:
        """SOP Instance UID of the photograph."""
        return str(self.image.SOPInstanceUID)

    def uid(self, kind: str) -> str:
        """UID of the object of that kind (``dicom-seg``)."""
        return derive_uid(self.image_uid, self.key, __version__, kind)

    def series_uid(self, kind: str) -> str:
        """UID of the series that holds objects of that kind for all images of the photograph's series."""
        return derive_uid(str(self.image.SeriesInstanceUID), self.key, __version__, kind, "series")

    def tracking_uid(self, number: int) -> str:
        """UID that follows lesion `number` (1 is the largest) of this photograph."""
        return derive_uid(self.image_uid, "lesion", str(number))

    @property
    def instance_number(self) -> int:
        """Number of the photograph in its series, or 1."""
        try:
            return max(1, int(self.image.get("InstanceNumber") or 1))
        except (TypeError, ValueError):
            return 1


def work_key(model: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Hash of everything but the image that shapes a result, 64 hexadecimal digits."""
    text = json.dumps({"model": dict(model), "options": dict(options)}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def equipment(origin: Origin) -> dict[str, Any]:
    """The arguments of highdicom's constructors that say which software made an object."""
    model = origin.model
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": f"dermseg {model['name']} {model['version']}"[:64],
        "software_versions": (__version__, f"model {model['name']} {model['version']}"[:64]),
        "device_serial_number": str(model["sha256"])[:32],
    }


def parameters(origin: Origin) -> dict[str, str]:
    """What the algorithm was called with, and the hashes that pin it down."""
    model = origin.model
    chosen = {key: str(value) for key, value in origin.options.items() if value is not None}
    return {
        "variant": str(model["variant"]),
        "network_sha256": str(model["sha256"]),
        "card_sha256": str(model["card_sha256"]),
        **chosen,
    }


def is_ours(dataset: Dataset) -> bool:
    """Whether dermseg made this object: results that come back are not work."""
    return str(dataset.get("Manufacturer") or "") == MANUFACTURER


def check_source(dataset: Dataset) -> None:
    """Refuse an image to which a result cannot be tied.

    Raises
    ------
    ImageError
        An identifier is missing.
    """
    names = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    missing = [name for name in names if not dataset.get(name)]
    if missing:
        raise ImageError(
            f"the {class_name(dataset)} has no {', '.join(missing)}: results could not be tied to it"
        )
