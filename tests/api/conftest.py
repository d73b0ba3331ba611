"""A real server on loopback, in a thread of this process, and what the tests send to it."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

KEYS = {"ris": "dsk_first-key-of-the-tests", "viewer": "dsk_second-key-of-the-tests"}


def _bearer(name: str = "ris") -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


def _encoded(extension: str = ".png", seed: int = 0, size: tuple[int, int] = (150, 200)) -> bytes:
    rng = np.random.default_rng(seed)
    image = rng.integers(170, 200, (*size, 3), np.uint8)
    centre = tuple(int(v) for v in rng.integers(60, 90, 2))
    cv2.ellipse(image, centre, (30, 20), 20.0 * seed, 0, 360, (30, 40, 60), -1)
    return bytes(cv2.imencode(extension, image)[1])


@pytest.fixture(scope="session")
def bearer() -> Callable[..., dict[str, str]]:
    """``bearer(name)``: the header with one of the two keys, ``ris`` or ``viewer``."""
    return _bearer


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """``encoded(extension, seed, size)``: a dark spot on light noise, which ``tiny_bundle`` finds."""
    return _encoded


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def unused_port() -> int:
    """A port of this machine that nobody listens on."""
    return _free_port()


@contextmanager
def _running(settings: Any) -> Iterator[Any]:
    """A server for as long as the block lasts; gives a client that sends the first key."""
    import httpx

    from dermseg.apps.api.server import make_server
    from dermseg.apps.api.services import Services

    port = _free_port()
    settings = settings.model_copy(update={"port": port})
    server = make_server(Services.start(settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    limits = httpx.Limits(max_connections=None)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=_bearer(), timeout=60, limits=limits
        ) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve(tiny_bundle: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """``serve(**settings)`` starts a server and gives its client; a second call ends the first server."""
    from dermseg.apps.api.settings import Settings

    keys = ",".join(f"{name}={hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items())
    with ExitStack() as stack:

        def start(**given: Any) -> Any:
            stack.close()
            values = {"state": tmp_path / "state", "models": (str(tiny_bundle),), "keys": keys, "workers": 2}
            return stack.enter_context(_running(Settings(**(values | given))))

        yield start


@pytest.fixture
def client(serve: Callable[..., Any]) -> Any:
    """The client of a server with usual settings."""
    return serve()
