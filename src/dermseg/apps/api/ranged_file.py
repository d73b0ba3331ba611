"""A file as an answer, whole or in part: a download of many megabytes goes on where it broke off."""

from __future__ import annotations

from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from dermseg.apps.api.problems import Problem


class RangedFile(FileResponse):
    """Starlette's, which refuses a ``Range`` in plain text.

    One that is none that it knows is passed over (RFC 9110, 14.2), one behind the end is a problem like any
    other.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the parts that are asked for."""

        async def checked(message: Message) -> None:
            if message.get("status") == 400:
                raise _NoRangeError
            if message.get("status") == 416:
                size = Headers(raw=message["headers"])["Content-Range"]
                raise Problem(416, "range", "the file ends before this", headers={"Content-Range": size})
            await send(message)

        try:
            await super().__call__(scope, receive, checked)
        except _NoRangeError:
            headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
            await super().__call__({**scope, "headers": headers}, receive, send)


class _NoRangeError(Exception):
    """What stands in ``Range`` is not understood."""
