"""The configuration of the work beside a PACS: one YAML file for ``dicom listen``, ``watch`` and ``queue``.

Unknown keys are refused with the nearest known one. Passwords stand in files or in the environment, never in
the YAML file. Paths are relative to the file.
"""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from dermseg.errors import ConfigError
from dermseg.inference.bundle import is_bundled_name
from dermseg.inference.outputs import DICOM_KINDS
from dermseg.schema import Strict, check, read_yaml

ResultKind = Literal["dicom-seg", "dicom-probability", "dicom-sr", "dicom-sc"]
assert set(DICOM_KINDS) == set(ResultKind.__args__)  # type: ignore[attr-defined]


def _title(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]{0,15}", value.strip() or " "):
        raise ValueError(f"'{value}' is no AE title: 1 to 16 ASCII characters, no backslash")
    return value.strip()


Title = Annotated[str, AfterValidator(_title)]
_Section = TypeVar("_Section", bound=Strict)
Port = Annotated[int, Field(ge=1, le=65535)]


def check_authority(path: Path) -> None:
    """See that a file holds certificates of those who are trusted.

    Raises
    ------
    ConfigError
        It is missing or holds none.
    """
    try:
        ssl.create_default_context(cafile=str(path))
    except OSError as error:  # ssl.SSLError too
        reason = "holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"authority: {reason}", file=path) from None


class Tls(Strict):
    """DICOM over TLS (PS3.15 B.9 and later profiles): both sides show a certificate."""

    certificate: Path
    key: Path
    authority: Path = Field(description="certificates of those who are trusted")

    def context(self, *, server: bool) -> ssl.SSLContext:
        """The settings as Python's ssl wants them.

        Raises
        ------
        ConfigError
            A file is missing or no certificate, or the key is another one's or has a passphrase.
        """
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        check_authority(self.authority)
        for name, path in (("certificate", self.certificate), ("key", self.key)):
            try:
                path.open("rb").close()
            except OSError as error:
                raise ConfigError(f"{name}: {error.strerror}", file=path) from None
        context = ssl.create_default_context(purpose, cafile=str(self.authority))
        try:
            # The empty passphrase: else OpenSSL asks for one at the terminal, and the service waits.
            context.load_cert_chain(self.certificate, self.key, password="")
        except OSError as error:  # ssl.SSLError too
            reason = getattr(error, "reason", None) or error
            raise ConfigError(
                f"tls: not possible with this certificate and the key {self.key}: {reason}",
                file=self.certificate,
                hint="both are PEM files, the key is the certificate's own and has no passphrase",
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        # Python 3.13 wants more of a certificate's form (key identifiers) than those of older devices have;
        # that the authority has signed it is checked all the same.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


class Listen(Strict):
    """Where images are received (C-STORE)."""

    ae_title: Title = "DERMSEG"
    address: str = Field(default="127.0.0.1", description="0.0.0.0 for all networks of this machine")
    port: Port = 11112
    callers: tuple[Title, ...] = Field(default=(), description="AE titles that may send; none named: all")
    storage_commitment: bool = Field(
        default=False,
        description="answer requests for commitment; keeps every received file for good",
    )
    tls: Tls | None = None


class Dimse(Strict):
    """An archive that is sent to by C-STORE."""

    ae_title: Title
    host: str
    port: Port = 104
    calling_title: Title = "DERMSEG"
    timeout_s: float = Field(default=30.0, gt=0)
    tls: Tls | None = None


class Web(Strict):
    """An archive that speaks DICOMweb."""

    url: str
    user: str | None = None
    password_file: Path | None = None
    token_env: str | None = Field(default=None, description="environment variable with a bearer token")
    authority: Path | None = Field(default=None, description="certificates of those who are trusted")
    timeout_s: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _one_secret(self) -> Web:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"'{self.url}' is no address: https://pacs.example/dicom-web")
        if "@" in urlsplit(self.url).netloc:  # it would stand in the log
            raise ValueError("url: no user or password in the address: give user and password_file")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file belong together")
        return self


class Send(Strict):
    """Where results go: one of the two."""

    dimse: Dimse | None = None
    web: Web | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Send:
        if (self.dimse is None) == (self.web is None):
            raise ValueError("name exactly one of dimse and web")
        return self


class Watch(Strict):
    """An archive that is asked for new images (QIDO-RS) and gives them (WADO-RS)."""

    web: Web
    modalities: tuple[str, ...] = Field(default=("DMS", "XC"), min_length=1)
    days: int | None = Field(default=7, ge=0, description="studies of so many days back; null: all")
    poll_s: float = Field(default=30.0, gt=0)


class Retry(Strict):
    """What happens when sending or fetching fails: again, later and later, then a dead letter."""

    attempts: int = Field(default=40, ge=1, description="with the defaults below, about 30 hours")
    first_s: float = Field(default=5.0, gt=0)
    longest_s: float = Field(default=3600.0, gt=0)

    def delay_s(self, attempts: int) -> float:
        """Seconds to wait after so many failures: doubled each time, up to the longest."""
        return float(min(self.longest_s, self.first_s * 2.0 ** min(attempts - 1, 40)))


class PacsConfig(Strict):
    """The whole file."""

    folder: Path = Field(description="queue and files under way; on a disk that survives a restart")
    model: str = "default"
    variant: str | None = None
    threshold: float | None = Field(default=None, gt=0, lt=1)
    lesions: Literal["largest", "all"] = "largest"
    tta: bool = False
    max_megapixels: float = Field(default=100.0, gt=0)
    results: tuple[ResultKind, ...] = Field(default=("dicom-seg", "dicom-sr"), min_length=1)
    send: Send
    listen: Listen = Listen()
    watch: Watch | None = None
    retry: Retry = Retry()
    keep_days: int = Field(default=30, ge=1, description="how long the record of finished work is kept")
    max_waiting: int = Field(default=10_000, ge=1, description="more waiting images are refused for now")
    audit: Path | None = Field(default=None, description="append-only log of every result")
    audit_key: Path | None = None

    @model_validator(mode="after")
    def _key_has_log(self) -> PacsConfig:
        if self.audit_key is not None and self.audit is None:
            raise ValueError("audit_key is set and audit is not, so there would be no audit log")
        return self

    @property
    def record_days(self) -> int | None:
        """How long finished work is remembered; None is for good.

        Not less than a watched archive lists an image, which would be fetched and worked on once more: from
        the first moment of its day on until the last one of another, on clocks a day apart at most.
        """
        if self.watch is None:
            return self.keep_days
        return None if self.watch.days is None else max(self.keep_days, self.watch.days + 2)

    @property
    def options(self) -> dict[str, Any]:
        """What shapes a result, beside the model."""
        return {"threshold": self.threshold, "lesions": self.lesions, "tta": self.tta}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Results in sending order; a report brings the segmentation along, which goes first."""
        wanted = {*self.results, *(["dicom-seg"] if "dicom-sr" in self.results else [])}
        return tuple(kind for kind in DICOM_KINDS if kind in wanted)


def load_config(path: Path) -> PacsConfig:
    """Read a configuration; its paths become absolute.

    Raises
    ------
    ConfigError
        Missing, not YAML, or keys or values that are wrong; all of them are named.
    """
    folder = path.absolute().parent
    config = _rebased(check(PacsConfig, read_yaml(path), path), folder)
    return config.model_copy(update={"model": _bundle_place(config.model, folder)})


def _bundle_place(model: str, folder: Path) -> str:
    """The bundle below the file's folder, where there is one; a service starts in a folder of its own."""
    beside = folder / Path(model).expanduser()
    return str(beside) if beside.exists() and not is_bundled_name(model) else model


def _rebased(section: _Section, folder: Path) -> _Section:
    changes: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            changes[name] = folder / value.expanduser()
        elif isinstance(value, Strict):
            changes[name] = _rebased(value, folder)
    return section.model_copy(update=changes)


def read_secret(web: Web) -> dict[str, Any]:
    """User and password, or a token, as ``{"auth": ...}`` or ``{"headers": ...}`` for requests.

    User and password are UTF-8 (RFC 7617, 2.1): requests would write text in Latin-1, if it can.

    Raises
    ------
    ConfigError
        The file or the environment variable is missing, or the file is no text.
    """
    if web.password_file is not None:
        try:
            password = web.password_file.read_text(encoding="utf-8-sig").strip()
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", file=web.password_file) from None
        except UnicodeDecodeError:
            raise ConfigError("is not UTF-8: save it as that", file=web.password_file) from None
        return {"auth": ((web.user or "").encode(), password.encode())}
    if web.token_env is not None:
        token = os.environ.get(web.token_env, "").strip()
        if not token:
            raise ConfigError(f"the environment variable {web.token_env} is empty")
        return {"headers": {"Authorization": f"Bearer {token}"}}
    return {}
