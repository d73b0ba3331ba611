"""One secret key, and everything that is derived with it: UIDs, patients, file names, shifted dates.

HMAC-SHA256 (RFC 2104) of the old value. With the same key the same patient, study and image get the same new
names in every run and in every file; without the key nobody can compute them from the old ones, nor test a
guess. A run without a key file draws a key and forgets it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from dermseg.dicom.identity import ROOT, uuid_bits
from dermseg.errors import UsageError

KEY_BYTES = 32
MAX_SHIFT_DAYS = 3650


class Pseudonyms:
    """New names for old ones.

    Parameters
    ----------
    key
        At least 16 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _digest(self, kind: str, *values: str) -> bytes:
        message = "\0".join((kind, *values)).encode("utf-8", "surrogateescape")
        return hmac.new(self._key, message, hashlib.sha256).digest()

    @property
    def fingerprint(self) -> str:
        """Names the key in reports without giving it away."""
        return self._digest("fingerprint").hex()[:16]

    def uid(self, old: str) -> str:
        """A UID under ``2.25.`` for an old one."""
        return ROOT + str(uuid_bits(self._digest("uid", old)))

    def patient(self, issuer: str, patient_id: str) -> str:
        """``ANON-`` and 12 letters for a patient."""
        digest = self._digest("patient", issuer.strip(), patient_id.strip())
        return "ANON-" + base64.b32encode(digest).decode()[:12]

    def file_name(self, content: bytes) -> str:
        """16 hexadecimal digits for the content of a file; its old name may be a person's."""
        return self._digest("file", hashlib.sha256(content).hexdigest()).hex()[:16]

    def shift_days(self, issuer: str, patient_id: str) -> int:
        """By how many days a patient's dates move, 1 to 3,650 back; intervals stay as they were."""
        digest = self._digest("shift", issuer.strip(), patient_id.strip())
        return -(1 + int.from_bytes(digest[:8], "big") % MAX_SHIFT_DAYS)


def open_key(path: Path | None) -> bytes:
    """The key in a file of hexadecimal digits; made where there is none. Without a file, a key for once.

    Raises
    ------
    UsageError
        The file does not hold a key, or cannot be read or made.
    """
    if path is None:
        return secrets.token_bytes(KEY_BYTES)
    try:
        if not path.exists():
            key = secrets.token_bytes(KEY_BYTES)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(key.hex() + "\n")
            return key
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise UsageError(f"cannot be used as key file: {error.strerror or error}", file=path) from None
    except ValueError:  # UnicodeDecodeError too
        key = b""
    if len(key) < 16:
        raise UsageError("does not hold a key: at least 32 hexadecimal digits", file=path)
    return key
