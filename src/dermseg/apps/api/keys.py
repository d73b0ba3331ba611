"""API keys: who may ask, how often, and how much at once. Only hashes of keys are ever stored.

A key is 256 random bits, so a plain SHA-256 of it is safe to keep: there is nothing to guess, and no slow
password hash is needed at every request. The file is read again when it changes; taking out a line (the last
one too) or the whole file locks those keys out within a second. A file with mistakes changes nothing. It is
YAML::

    keys:
      - id: ris
        sha256: 5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8
        requests_per_minute: 600   # optional
        max_body_mb: 20            # optional
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from dermseg.errors import UsageError
from dermseg.schema import Strict, place_of, words_of

PREFIX = "dsk_"
_RELOAD_S = 1.0
_GRACE_S = 0.05  # for a file that is away or empty while it is saved
_MAX_FILE = 1_000_000
_log = logging.getLogger(__name__)


class Client(Strict):
    """One key: its name, which logs and audit records carry, its hash and its limits.

    Parameters
    ----------
    id
        Short code; not a person's name.
    sha256
        Of the key, in hexadecimal digits.
    requests_per_minute
        None is no limit of its own; a sixth of it may come at once.
    max_body_mb
        None is the server's limit.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    requests_per_minute: float | None = Field(default=None, gt=0)
    max_body_mb: float | None = Field(default=None, gt=0)


class _KeyFile(Strict):
    keys: tuple[Client, ...]

    @field_validator("keys", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return () if value is None else value  # "keys:" and no line below it


# Who asks where no keys are set up (loopback only). No key has this hash: it is not one of a text.
ANYONE = Client(id="anyone", sha256="0" * 64)


class KeyRing:
    """The keys of a server.

    Parameters
    ----------
    path
        The YAML file; None for none.
    text
        ``id=sha256`` pairs separated by commas, as an environment variable holds them.

    Raises
    ------
    UsageError
        The file cannot be read, is not of this form, or two keys share an id.
    """

    def __init__(self, path: Path | None = None, text: str = "") -> None:
        self._path = path
        self._fixed = _parse_pairs(text)
        self._checked = time.monotonic()
        self._stamp = _stamp(path)
        self._clients = self._join(() if path is None else _read_file(path))
        if path is not None and not self._clients:
            raise UsageError("there is no API key in the file", file=path, hint="dermseg serve new-key NAME")

    @property
    def open(self) -> bool:
        """Whether there are no keys at all, so that everybody on this machine may ask."""
        return self._path is None and not self._fixed

    def find(self, authorization: str | None) -> Client | None:
        """The client of an ``Authorization`` header, or None where it is missing or wrong."""
        if self.open:
            return ANYONE
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            return None
        self._reload()
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for client in self._clients:  # all of them, so that time tells nothing
            if hmac.compare_digest(client.sha256, digest):
                found = client
        return found

    def _reload(self) -> None:
        now = time.monotonic()
        if self._path is None or now - self._checked < _RELOAD_S:
            return
        self._checked = now
        if _stamp(self._path) == self._stamp:
            return
        try:
            found = self._look(self._path)
            if not found:
                time.sleep(_GRACE_S)
                found = self._look(self._path)
            self._clients = self._join(found)
            _log.info("keys reloaded", extra={"keys": len(self._clients)})
        except UsageError as error:  # an editor may be amid saving: the keys known stay in force
            _log.error("keys not reloaded", extra={"reason": error.message})

    def _look(self, path: Path) -> tuple[Client, ...]:
        """The keys in the file now; none where it is gone."""
        self._stamp = _stamp(path)
        return () if self._stamp is None else _read_file(path)

    def _join(self, found: tuple[Client, ...]) -> tuple[Client, ...]:
        clients = (*self._fixed, *found)
        ids = [client.id for client in clients]
        if len(set(ids)) < len(ids):
            raise UsageError(f"two API keys share an id: {sorted(ids)}", file=self._path)
        return clients


def new_key() -> tuple[str, str]:
    """A new key and its SHA-256."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


def _read_file(path: Path) -> tuple[Client, ...]:
    try:
        with path.open("rb") as file:
            data = yaml.safe_load(file.read(_MAX_FILE))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not YAML"
        raise UsageError(f"the file of API keys cannot be read: {reason}", file=path) from None
    try:
        return () if data is None else _KeyFile.model_validate(data).keys
    except ValidationError as error:
        raise UsageError(f"the file of API keys is wrong at {_first(error)}", file=path) from None


def _parse_pairs(text: str) -> tuple[Client, ...]:
    clients = []
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, digest = pair.partition("=")
        try:
            clients.append(Client(id=name.strip(), sha256=digest.strip()))
        except ValidationError as error:
            raise UsageError(
                f"API key '{name.strip()[:64]}' is not id=sha256: {_first(error)}",
                hint="dermseg serve new-key NAME",
            ) from None
    return tuple(clients)


def _first(error: ValidationError) -> str:
    """Where the first mistake is and what it is; never the value, which may be a key by mistake."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"'{place_of(first)}': {words_of(first)}"


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    """What changes with the file: with its mode, too, and where every file has one date."""
    try:
        status = None if path is None else path.stat()
    except OSError:
        return None
    return None if status is None else (status.st_ctime_ns, status.st_mtime_ns, status.st_size)
