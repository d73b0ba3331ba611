"""One line of the audit log: what it says, and the hash that ties it to the line before.

Decisions
---------
- A line is one JSON object whose last field is ``hash``: SHA-256, or HMAC-SHA256 where there is a key, over
  the exact bytes of the rest of the line. The rest holds ``prev``, the hash of the line before. So a changed
  byte, a line taken out, put in or moved breaks the chain at that place (linked time-stamping, Haber and
  Stornetta 1991, doi 10.1007/BF00196791).
- Without a key, whoever can write the file can also compute a new chain from a place on. With a key that lies
  elsewhere nobody without it can. Against cutting off the end see `log`.
- Hashes and short codes only: no image, no file name, nothing about a patient can get in.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dermseg.errors import DermsegError, UsageError

START = "0" * 64  # ``prev`` of the first line
MIN_KEY_BYTES = 16
Event = Literal["opened", "repaired", "result", "override"]
EVENTS: tuple[Event, ...] = ("opened", "repaired", "result", "override")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CODE = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")
_HASH_FIELD = b',"hash":"'
# What the first line of a log with a key says, and of one without.
_KEYED = b'"event":"opened","actor":"dermseg","subject":"hmac:'
_UNKEYED = b'"event":"opened","actor":"dermseg","subject":"unkeyed"'
_TAIL_BYTES = len(_HASH_FIELD) + 64 + len(b'"}')


class AuditError(DermsegError):
    """The audit log cannot be trusted or cannot be written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is recorded of one event. Unknown is None.

    Parameters
    ----------
    event
        ``result``: a mask was given out. ``override``: a person decided otherwise (or confirmed it).
        ``opened`` and ``repaired`` are written by the log itself.
    actor
        The id of the key or user that asked, never the key.
    subject
        What it is about: the id of the request, ``job/<id>/<number>``, of the work beside a PACS
        ``dicom/<job>/<digest>/<image>`` (`image_mark`), or ``seq/<number>`` of the record that is overridden.
    input_sha256, model_sha256, config_sha256, output_sha256
        Of the image file as it came, of the network, of everything else that shapes the mask (card and
        options), and of the mask as PNG.
    verdict
        What was given out with the mask: ``accept``, ``review`` or ``reject``; of a model without an input
        gate ``ok``, ``no_lesion`` or ``review``.
    override
        What a person decided: ``accepted``, ``rejected``, ``replaced``.
    """

    event: Event
    actor: str
    subject: str
    input_sha256: str | None = None
    model_sha256: str | None = None
    config_sha256: str | None = None
    output_sha256: str | None = None
    verdict: str | None = None
    override: str | None = None

    def __post_init__(self) -> None:
        if self.event not in EVENTS:
            raise UsageError(f"unknown audit event '{self.event}'", hint=f"one of {', '.join(EVENTS)}")
        for name in ("actor", "subject", "verdict", "override"):
            value = getattr(self, name)
            if value is not None and not _CODE.fullmatch(value):
                raise UsageError(f"audit {name} {value!r} is not a short code of letters, digits and ._:/@+-")
        for name in ("input_sha256", "model_sha256", "config_sha256", "output_sha256"):
            value = getattr(self, name)
            if value is not None and not _DIGEST.fullmatch(value):
                raise UsageError(f"audit {name} is not a SHA-256 in 64 hexadecimal digits")


def image_mark(sop_instance_uid: str) -> str:
    """Stands for a DICOM image: of its UID, because archives do not keep the bytes of the file that came."""
    return hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32]


def verdict_of(status: str, verdict: str | None, needs_review: bool | None) -> str:
    """The code of a result in the log: the verdict that was given out.

    A bundle without a gate gives none: then ``no_lesion``, ``review`` (a doubtful outline) or ``ok``.
    """
    if verdict is not None:
        return verdict
    return "review" if status == "ok" and needs_review else status


def encode_line(entry: Entry, seq: int, prev: str, key: bytes | None) -> tuple[bytes, str]:
    """The line of an entry, with its line break, and its hash."""
    data: dict[str, Any] = {"seq": seq, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
    data |= {name: getattr(entry, name) for name in Entry.__slots__}
    data["prev"] = prev
    body = json.dumps(data, separators=(",", ":")).encode()[:-1]
    digest = chain_hash(body, key)
    return body + _HASH_FIELD + digest.encode() + b'"}\n', digest


def chain_hash(body: bytes, key: bytes | None) -> str:
    """The hash over a line without its last field."""
    if key is None:
        return hashlib.sha256(body).hexdigest()
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def decode_line(line: bytes, key: bytes | None) -> dict[str, Any]:
    """The fields of a line whose hash is right.

    Raises
    ------
    ValueError
        It is not a whole line, or its hash is not that of its content; the text says which.
    """
    body, tail = line[: -_TAIL_BYTES - 1], line[-_TAIL_BYTES - 1 :]
    if not (tail.startswith(_HASH_FIELD) and tail.endswith(b'"}\n')):
        raise ValueError("is not a whole record")
    digest = chain_hash(body, key)
    if not hmac.compare_digest(tail[len(_HASH_FIELD) : -3], digest.encode()):
        other_key = ", or the key is another one" if key else ""
        if key is None and _KEYED in body:
            other_key = ": it says that the log was begun with a key, and none was given"
        if key is not None and _UNKEYED in body:
            other_key = ": it says that the log was begun without a key, and one was given"
        raise ValueError(f"has a hash that is not that of its content{other_key}")
    try:
        data = json.loads(body + b"}")
    except ValueError:
        raise ValueError("is not JSON") from None
    if (
        not isinstance(data, dict)
        or type(data.get("seq")) is not int
        or not isinstance(data.get("prev"), str)
    ):
        raise ValueError("is not a record")
    return {**data, "hash": digest}


def key_name(key: bytes | None) -> str:
    """What the first record says about the key: that there is none, or which one, without giving it away."""
    return (
        "unkeyed" if key is None else "hmac:" + hashlib.sha256(b"dermseg audit key\0" + key).hexdigest()[:16]
    )


def read_key(path: Path | None) -> bytes | None:
    """The key in a file; None for None.

    Raises
    ------
    UsageError
        The file cannot be read or holds less than 16 bytes.
    """
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"the audit key cannot be read: {error.strerror or error}", file=path) from None
    if len(key) < MIN_KEY_BYTES:
        raise UsageError(
            f"the audit key has {len(key)} bytes, fewer than {MIN_KEY_BYTES}",
            file=path,
            hint="openssl rand -hex 32 > FILE makes a good one",
        )
    return key
