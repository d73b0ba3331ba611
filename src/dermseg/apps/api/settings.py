"""What a server is told when it starts. One frozen object; every part of the server reads from it."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dermseg.inference.threads import available_cpus
from dermseg.schema import Strict

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_USUAL_PORTS = {"http": ":80", "https": ":443"}


class Settings(Strict):
    """Settings of a server.

    Parameters
    ----------
    state
        Folder for jobs, their database and the audit log; the only place that is written to.
    host, port
        Where to listen. Without API keys only the machine itself (loopback) may be served.
    models
        Names or paths of bundles; the first is used where a request names none.
    variant, runtime
        As for ``dermseg segment``. The runtime is ONNX Runtime unless told otherwise, so that masks are the
        same on every machine.
    keys_file, keys
        API keys, see ``keys``: a YAML file, or ``id=sha256`` pairs separated by commas.
    audit_key_file
        Key of the audit log's chain, see ``dermseg.audit``.
    workers
        Images at once; each has one thread in the network.
    max_batch
        Images that go into one network call at most. Only what waits already is put together; nothing waits
        for company.
    queue
        Images that may wait. One more is answered with 503 and the time after which to try again.
    max_body_mb, max_megapixels
        Larger requests and pictures are refused.
    max_inflight_mb
        Bodies of all requests together; more are answered with 503.
    max_job_mb, max_job_images, max_jobs
        The same for batch jobs, and how many may be unfinished.
    job_days
        Finished jobs are removed after this.
    cors_origins
        Web pages of these origins may call the server from a browser; none by default.
    tls_cert, tls_key
        Files for HTTPS; None is HTTP, for use behind a proxy.
    header_timeout_s, body_timeout_s, send_timeout_s
        A client gets this long for a request's head, for its body (for a job: between two pieces of it), and
        to take what was sent.
    shutdown_timeout_s
        How long requests under way may take to end when the server is told to stop.
    """

    state: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    models: tuple[str, ...] = Field(default=("default",), min_length=1)
    variant: str | None = None
    runtime: str | None = None
    keys_file: Path | None = None
    keys: str = Field(default="", repr=False)
    audit_key_file: Path | None = None
    workers: int = Field(default_factory=available_cpus, ge=1, le=256)
    max_batch: int = Field(default=4, ge=1, le=64)
    queue: int = Field(default=32, ge=1, le=10_000)
    max_body_mb: float = Field(default=50.0, gt=0, le=2000)
    max_megapixels: float = Field(default=100.0, gt=0, le=10_000)
    max_inflight_mb: float = Field(default=512.0, gt=0)
    max_job_mb: float = Field(default=2048.0, gt=0)
    max_job_images: int = Field(default=10_000, ge=1, le=100_000)
    max_jobs: int = Field(default=100, ge=1)
    job_days: float = Field(default=7.0, gt=0)
    cors_origins: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    header_timeout_s: float = Field(default=10.0, gt=0)
    body_timeout_s: float = Field(default=60.0, gt=0)
    send_timeout_s: float = Field(default=60.0, gt=0)
    shutdown_timeout_s: int = Field(default=30, ge=1)

    @field_validator("cors_origins")
    @classmethod
    def _as_browsers_say(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        """What a browser would never send as an origin would allow nothing, in silence."""
        for origin in origins:
            if len(origin.replace(",", " ").split()) > 1:
                raise ValueError(
                    f"'{origin}' is more than one: repeat the option, or put spaces between them in "
                    "DERMSEG_CORS_ORIGIN"
                )
            parts = urlsplit(origin.strip().lower())
            host = parts.netloc.rpartition("@")[2].removesuffix(_USUAL_PORTS.get(parts.scheme, ":"))
            plain = f"{parts.scheme}://{host}" if parts.scheme and host else "https://pacs.example"
            if origin not in ("*", "null", plain):
                raise ValueError(f"'{origin}' is not an origin as browsers send it: {plain}")
        return origins

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if not (self.keys_file or self.keys) and self.host not in LOOPBACK:
            raise ValueError(
                f"without API keys only this machine is served, not {self.host}: give --keys FILE "
                "('dermseg serve new-key NAME' makes its lines), or listen on 127.0.0.1"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("HTTPS needs both --tls-cert and --tls-key")
        if self.max_inflight_mb < self.max_body_mb:
            raise ValueError(
                f"--max-body-mb {self.max_body_mb:g} is above the {self.max_inflight_mb:g} MB for all at once"
            )
        return self

    @property
    def max_body(self) -> int:
        """Bytes of a request with one image."""
        return round(self.max_body_mb * 1e6)

    @property
    def max_pixels(self) -> int:
        """Pixels of a picture."""
        return round(self.max_megapixels * 1e6)
