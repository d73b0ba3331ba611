"""Ask a server for a file: what it says about it, and the open reply. Standard library only."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any

from dermseg.errors import DataError, DownloadError


@dataclass(frozen=True)
class RemoteInfo:
    """What a server says about a file; None where it says nothing."""

    size: int | None
    etag: str | None
    last_modified: str | None

    @classmethod
    def of(cls, headers: Message, size: int | None) -> RemoteInfo:
        """From the headers of a reply; the size means another thing in each kind of reply."""
        return cls(size, headers.get("ETag"), headers.get("Last-Modified"))

    @property
    def validator(self) -> str | None:
        """What ``If-Range`` may be compared with: a strong ETag, else the date (RFC 9110, 13.1.5)."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0917 - the signature of the base class
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise DownloadError("the server redirects from https to an address without it", file=newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str, headers: dict[str, str], timeout_s: float, method: str = "GET") -> Any:
    """The open reply to one request. Redirects are followed, but never from https to http.

    Raises
    ------
    DataError
        No address of the web.
    DownloadError
        A redirect away from https.
    OSError, http.client.HTTPException
        There is no answer, or it is one of an error.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise DataError("only http and https addresses are fetched", file=url)
    request = urllib.request.Request(
        url,
        headers={"User-Agent": "dermseg", "Accept-Encoding": "identity", **headers},
        method=method,
    )
    opener = urllib.request.build_opener(_NoDowngrade())
    return opener.open(request, timeout=timeout_s)


def content_length(headers: Message) -> int | None:
    """Bytes that a reply announces."""
    length = headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def remote_info(url: str, *, timeout_s: float = 30.0) -> RemoteInfo:
    """Ask for the size of a remote file (HEAD). Nothing known is returned when the server refuses HEAD.

    Raises
    ------
    DownloadError
        The server says that there is no such file.
    """
    try:
        with open_url(url, {}, timeout_s, "HEAD") as reply:
            return RemoteInfo.of(reply.headers, content_length(reply.headers))
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (404, 410):
                raise DownloadError(f"the server answers {error.code} {error.reason}", file=url) from None
    except (OSError, http.client.HTTPException):
        pass  # the download itself will try again and say what is wrong
    return RemoteInfo(None, None, None)
