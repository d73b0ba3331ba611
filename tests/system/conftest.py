"""Tests that need programs from the system's packages: Chromium, Node. ``make test-system`` runs them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (make test-system)")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    # As nginx says of what its list does not have.
    extensions_map = dict.fromkeys((".mjs", ".onnx", ".webmanifest", ""), "application/octet-stream")

    def __init__(self, *args: Any, moved: dict[str, str], headers: dict[str, str], **kwargs: Any) -> None:
        self.moved, self.more = moved, headers
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if self.path in self.moved:
            self.send_response(301)
            self.send_header("Location", self.moved[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def end_headers(self) -> None:
        for name, value in self.more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Any]:
    """``serve(folder)`` gives the address of a local web server for it.

    `moved` are paths that it redirects, `headers` go with all it sends.
    """
    servers: list[ThreadingHTTPServer] = []

    def start(
        folder: Path, moved: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> str:
        handler = partial(_Quiet, directory=str(folder), moved=moved or {}, headers=headers or {})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
