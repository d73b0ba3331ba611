"""Reading what a client sends, within limits of size and time; nothing is written to disk on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email.message import Message
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from dermseg.apps.api.problems import Problem

FIELD = "image"
IMAGE_TYPES = (
    *("image/jpeg", "image/png", "image/tiff", "image/bmp", "image/webp", "image/heic", "image/heif"),
    *("image/jpg", "application/dicom"),  # the first is no registered name, and much used
)
RAW_TYPES = (*IMAGE_TYPES, "application/octet-stream")
# What curl --data-binary says unless told otherwise. What a body is is read from its bytes anyway.
_UNSAID = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"


def content_type(request: Request, allowed: tuple[str, ...]) -> Message:
    """The request's content type, with its parameters.

    Raises
    ------
    Problem
        415: it is not one of `allowed`, or the body is compressed.
    """
    found = Message()
    found["Content-Type"] = request.headers.get("content-type", "application/octet-stream")
    if found.get_content_type() not in (*allowed, _UNSAID):
        raise Problem(
            415, "content-type", "a body of this content type is not read", hint=f"send {', '.join(allowed)}"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "content-encoding", "a compressed body is not read", hint="send it as it is")
    return found


def declared_size(request: Request, limit: int) -> int | None:
    """The size that the request declares; None where it comes in chunks.

    Raises
    ------
    Problem
        413: more than `limit`.
    """
    text = request.headers.get("content-length", "")
    if not text.isdigit():
        return None
    if int(text) > limit:
        raise _too_large(limit)
    return int(text)


async def pieces(request: Request, limit: int, *, idle_s: float | None) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises
    ------
    Problem
        413: more than `limit` bytes; 408: nothing came for so long (None: however long).
    """
    total = 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle_s):
                piece = await anext(stream, None)
        except TimeoutError:
            raise Problem(408, "slow", "the body did not come in time") from None
        if piece is None:
            return
        total += len(piece)
        if total > limit:
            raise _too_large(limit)
        yield piece


async def read_body(request: Request, limit: int, *, timeout_s: float) -> bytes:
    """The whole body in memory; the caller has set room for it aside, see ``limits.ByteBudget``.

    Raises
    ------
    Problem
        413, 408 as above; 400: it is empty.
    """
    try:
        async with asyncio.timeout(timeout_s):
            parts = [piece async for piece in pieces(request, limit, idle_s=None)]
    except TimeoutError:
        hint = f"an image must be here within {timeout_s:g} s; over a slow line, send it in a zip to /v1/jobs"
        raise Problem(408, "slow", "the body did not come in time", hint=hint) from None
    body = b"".join(parts)
    if not body:
        raise Problem(400, "body", "the body is empty", hint="send the bytes of an image file")
    return body


def image_part(body: bytes, kind: Message) -> bytes:
    """The file in the field ``image`` of a multipart form.

    Raises
    ------
    Problem
        400: not a multipart form, or not exactly one such field.
    """
    boundary = kind.get_boundary()
    if not boundary:
        raise Problem(400, "multipart", "the multipart form has no boundary")
    names: list[str | None] = []
    found: list[bytes] = []
    header, value, disposition = bytearray(), bytearray(), Message()
    ends: list[bool] = []

    def on_part_begin() -> None:
        nonlocal disposition
        if names:  # at once: a body of a million parts would take a minute to go through
            raise _one_field()
        disposition = Message()

    def on_header_end() -> None:
        if bytes(header).lower() == b"content-disposition":
            disposition["Content-Disposition"] = bytes(value).decode("latin-1")
        header.clear()
        value.clear()

    def on_headers_finished() -> None:
        name = disposition.get_param("name", header="content-disposition")
        names.append(name if isinstance(name, str) else None)

    def on_part_data(data: bytes, start: int, end: int) -> None:
        if names[-1] == FIELD:
            found.append(data[start:end])

    callbacks: Any = {
        "on_part_begin": on_part_begin,
        "on_header_field": lambda data, start, end: header.extend(data[start:end]),
        "on_header_value": lambda data, start, end: value.extend(data[start:end]),
        "on_header_end": on_header_end,
        "on_headers_finished": on_headers_finished,
        "on_part_data": on_part_data,
        "on_end": lambda: ends.append(True),
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Problem(400, "multipart", f"the multipart form is damaged: {type(error).__name__}") from None
    if not ends:
        raise Problem(400, "multipart", "the multipart form ends early")
    if names != [FIELD]:
        raise _one_field()
    data = b"".join(found)
    if not data:
        raise Problem(400, "body", "the file is empty", hint="send the bytes of an image file")
    return data


def _one_field() -> Problem:
    return Problem(
        400,
        "multipart",
        f"the form must have one field, '{FIELD}', with the file",
        hint="parameters stand in the address: /v1/segment?measure=true",
    )


def _too_large(limit: int) -> Problem:
    return Problem(413, "too-large", f"the body is larger than {limit / 1e6:g} MB")
