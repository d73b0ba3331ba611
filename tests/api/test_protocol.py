"""Clients that do not behave: raw sockets against a real server."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra [api]")

from dermseg.apps.api import gate


@pytest.fixture
def connect(serve: Callable[..., Any]) -> Callable[[], socket.socket]:
    client = serve(header_timeout_s=0.5, body_timeout_s=0.5, max_body_mb=1)

    def open_socket() -> socket.socket:
        return socket.create_connection(("127.0.0.1", client.base_url.port), timeout=20)

    open_socket.client = client  # type: ignore[attr-defined]
    return open_socket


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and problem of an answer; reads until the server closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else {}


AUTH = b"Authorization: Bearer dsk_first-key-of-the-tests\r\n"


def test_a_head_that_does_not_end_is_refused_in_time(connect: Callable[[], socket.socket]) -> None:
    for first in (b"", b"GET / HT", b"GET /health HTTP/1.1\r\nHost: x\r\nA: b"):
        with connect() as connection:
            connection.sendall(first)
            status, problem = answer(connection)
            assert (status, problem["status"]) == (408, 408)  # before the 20 s of the socket are over


def test_a_second_head_has_the_same_time(connect: Callable[[], socket.socket]) -> None:
    with connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in connection.recv(65536)
        connection.sendall(b"GET /hea")
        assert answer(connection)[0] == 408


def test_an_offer_of_http_2_is_passed_over_in_silence(
    connect: Callable[[], socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """Java's client makes one; before, the log advised to install libraries for WebSockets."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\r\n"
    with connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n" + offer)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 40_000, 431),
        (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_is_refused(connect: Callable[[], socket.socket], sent: bytes, status: int) -> None:
    with connect() as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)
        assert answer(connection)[0] == status


def test_a_body_that_does_not_come_is_refused_in_time(connect: Callable[[], socket.socket]) -> None:
    head = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + AUTH
    for first in (b"Content-Length: 1000\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"):
        with connect() as connection:
            connection.sendall(head + first)
            status, problem = answer(connection)
            assert status == 408 and "within 0.5 s" in problem["hint"]


def test_a_small_body_has_its_time_as_a_whole(
    connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, every byte had it, and the answer was that the body cannot be parsed."""
    monkeypatch.setattr(gate, "_SMALL_BODY_S", 0.6)
    with connect() as connection:
        connection.sendall(
            b"POST /v1/audit/1/override HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: 1000\r\n" + AUTH + b"\r\n"
        )
        start = time.monotonic()
        connection.settimeout(0.2)
        data = b""
        while not data and time.monotonic() - start < 60:  # which are 300 of the 1000 bytes
            connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                data = connection.recv(65536)
    assert b" 408 " in data.split(b"\r\n")[0]


def test_a_body_of_unknown_size_is_limited(connect: Callable[[], socket.socket]) -> None:
    with connect() as connection:
        connection.sendall(
            b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
            + AUTH
            + b"\r\n"
        )
        piece = b"a" * 100_000
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(30):
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        assert answer(connection)[0] == 413


def test_half_a_chunk_then_nonsense(connect: Callable[[], socket.socket]) -> None:
    with connect() as connection:
        connection.sendall(
            b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            + AUTH
            + b"\r\nnonsense\r\n"
        )
        assert answer(connection)[0] == 400
    client = connect.client  # type: ignore[attr-defined]
    assert client.get("/health").status_code == 200  # and everybody else is served


def test_nothing_of_a_body_is_read_without_a_key(connect: Callable[[], socket.socket]) -> None:
    with connect() as connection:
        connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n")
        connection.settimeout(10)
        assert b" 401 " in connection.recv(65536).split(b"\r\n")[0]


def test_what_a_stopping_server_gives_up_may_be_sent_again(serve: Callable[..., Any]) -> None:
    """Before, it was a 500 in plain text: a fault of the server."""
    client = serve(shutdown_timeout_s=1)
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=20) as connection:
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n" + AUTH
        connection.sendall(head + b"\r\nthe rest takes minutes")
        time.sleep(0.2)
        serve()  # ends the first one
        status, problem = answer(connection)
    assert (status, problem["type"]) == (503, "urn:dermseg:problem:stopping")


def test_idle_connections_outlive_those_of_proxies() -> None:
    """Else nginx and load balancers answer 502 now and then: they keep connections for 60 s."""
    from dermseg.apps.api.server import make_server
    from dermseg.apps.api.settings import Settings

    services: Any = SimpleNamespace(settings=Settings(state="state"), keys=None, metrics=None)
    assert make_server(services).config.timeout_keep_alive > 60
