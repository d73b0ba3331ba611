"""Everything that can go wrong, as ``application/problem+json`` (RFC 9457). No traces, no paths, no names.

A file's name may be a patient's, so ``DermsegError.file`` is never shown, and of an error that nobody
expected only its kind and the line of code are logged, and why a disk refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import traceback
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from dermseg.audit import AuditError
from dermseg.errors import DermsegError, ImageError, MaskError, MissingExtraError, ModelError, UsageError

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger(__name__)


class ProblemDetails(BaseModel):
    """The body of an answer that is an error."""

    type: str = Field(description="A name for this kind of problem", examples=["urn:dermseg:problem:image"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["the JPEG file ends early"])
    hint: str | None = Field(default=None, description="What to do about it")
    errors: list[dict[str, Any]] | None = Field(
        default=None, description="Which parameters are wrong, and why"
    )
    request_id: str | None = Field(default=None, examples=["5b8d1e0c7f3a4c6e9d2b1a0f8e7c6d5b"])


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An answer that is an error.

    Parameters
    ----------
    status
        HTTP status.
    kind
        Last part of the ``type``.
    detail, hint
        What is wrong and what to do.
    retry_after
        Seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        hint: str | None = None,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.hint, self.errors = status, kind, detail, hint, errors
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def response(self, request_id: str | None) -> Response:
        """As an answer."""
        body = ProblemDetails(
            type=f"urn:dermseg:problem:{self.kind}",
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            hint=self.hint,
            errors=self.errors,
            request_id=request_id,
        )
        data = json.dumps(body.model_dump(exclude_none=True), allow_nan=False).encode()
        return Response(data, self.status, self.headers, MEDIA_TYPE)


def problem_of(error: BaseException) -> Problem:
    """The problem that an exception is; an unexpected one is logged and becomes a plain 500."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, asyncio.CancelledError):  # told to stop, the server has waited long enough
        return Problem(503, "stopping", "the server is about to stop", retry_after=5)
    if isinstance(error, RequestValidationError):
        errors = [
            {"where": ".".join(map(str, e["loc"])), "what": e["msg"], "kind": e["type"]}
            for e in error.errors()
        ]
        no_json = any(e["loc"] == ("body",) or e["type"] == "json_invalid" for e in error.errors())
        hint = "send JSON, with Content-Type: application/json" if no_json else None
        return Problem(422, "parameters", "the request's parameters are wrong", hint=hint, errors=errors)
    if isinstance(error, HTTPException) and isinstance(error.__cause__, Problem):
        # FastAPI takes what ends the reading of a body for a body that cannot be parsed
        return error.__cause__
    if isinstance(error, HTTPException):
        kind = {404: "not-found", 405: "method"}.get(error.status_code, "http")
        return Problem(error.status_code, kind, error.detail, headers=dict(error.headers or {}))
    if isinstance(error, MissingExtraError):
        return Problem(501, "not-installed", error.message, hint=error.hint)
    if isinstance(error, ImageError | MaskError):
        return Problem(422, "image", error.message, hint=error.hint)
    if isinstance(error, UsageError):
        return Problem(400, "usage", error.message, hint=error.hint)
    log_unexpected(error)
    if isinstance(error, MemoryError):
        return Problem(503, "memory", "not enough memory now", retry_after=5)
    if isinstance(error, ModelError):
        return Problem(500, "model", "the model cannot run")
    if isinstance(error, DermsegError | sqlite3.Error | OSError):
        return Problem(503, "storage", "results cannot be stored now", retry_after=30)
    return Problem(500, "unexpected", "an unexpected error; the server's log has the place in the code")


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods that a path has, by the application's description."""
    found: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            found |= {method.upper() for method in operations}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def log_unexpected(error: BaseException) -> None:
    """Log where in the code an error came from. Its text stays out: it may quote a file's name."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    where = [f"{frame.filename.rpartition('dermseg/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    _log.error("error", extra={"kind": type(error).__name__, "reason": _refusal(error), "where": where})


def _refusal(error: BaseException) -> str | None:
    """Why nothing could be stored, in words that quote no file: "No space left on device"."""
    if isinstance(error, AuditError):
        return error.message
    if isinstance(error, sqlite3.Error):
        return str(error)
    return next((cause.strerror for cause in (error, error.__cause__) if isinstance(cause, OSError)), None)


def install_handlers(app: FastAPI) -> None:
    """Make every error of the application a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem.status == 405:  # every method of the path, not only those of the first route that has it
            problem.headers = {"Allow": ", ".join(_methods(app, request.scope["path"]))}
        return problem.response(request.scope.get("state", {}).get("request_id"))

    for kind in (Problem, RequestValidationError, HTTPException, DermsegError):
        app.add_exception_handler(kind, handle)
