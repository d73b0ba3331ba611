"""What the benchmarks of the REST server share: images, the command's masks, a server, a small client."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from dermseg.apps.api.keys import new_key
from dermseg.data.synthetic import synthesize
from dermseg.inference.bundle import load_bundle

PROGRAM = (sys.executable, "-m", "dermseg.apps.cli.main")
START_S = 120.0
LIMIT = 1 << 27


def copy_model(name: str, folder: Path) -> str:
    """A copy of the bundle: an experiment takes minutes, and the model must stay the same."""
    return str(shutil.copytree(load_bundle(name).path, folder / "model"))


def write_images(folder: Path, count: int, given: Path | None = None) -> list[Path]:
    """``count`` images: of a folder, or drawn ones of different sizes as JPEG and PNG."""
    folder.mkdir(parents=True)
    if given is not None:
        found = sorted(path for path in given.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        return [
            Path(shutil.copy(path, folder / f"{i:04d}{path.suffix.lower()}"))
            for i, path in enumerate(found[:count])
        ]
    paths = []
    for i in range(count):
        image, _, _ = synthesize(i, (450 + 30 * (i % 4), 600 + 40 * (i % 3)))
        path = folder / f"{i:04d}{('.jpg', '.jpg', '.jpg', '.png')[i % 4]}"
        cv2.imwrite(str(path), image[..., ::-1])
        paths.append(path)
    return paths


def command_masks(images: Path, out: Path, model: str, *options: str) -> tuple[dict[str, bytes], float]:
    """What ``dermseg segment`` writes for each image (by stem), and its images per second."""
    command = [*PROGRAM, "segment", str(images), "-o", str(out), "--model", model, "--json"]
    command += ["--runtime", "onnxruntime", "--save", "mask", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    masks = {
        path.stem.removesuffix("_segmentation"): path.read_bytes() for path in (out / "masks").glob("*.png")
    }
    return masks, float(json.loads(done.stdout)["images_per_second"])


class Server:
    """``dermseg serve`` in a process of its own, with one API key."""

    def __init__(self, state: Path, model: str, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.state = state
        self.key, digest = new_key()
        self._environment = {**os.environ, "DERMSEG_API_KEYS": f"benchmark={digest}"}
        self._command = [*PROGRAM, "serve", "--state", str(state), "--port", str(self.port), "--model", model]
        self._command += options
        self._log = state.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def authorization(self) -> dict[str, str]:
        """The header that opens the door."""
        return {"Authorization": f"Bearer {self.key}"}

    def start(self) -> float:
        """Start it; returns the seconds until it was ready."""
        began = time.monotonic()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=self._environment, stderr=log)
        while time.monotonic() < began + START_S:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5):
                    return time.monotonic() - began
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"the server did not start:\n{self._log.read_text(errors='replace')[-2000:]}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop or kill it; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(120)

    def rss_mb(self) -> float:
        """Memory in use."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None


@dataclass(frozen=True)
class Answer:
    """Status, headers (lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Connection:
    """A kept-open HTTP connection; a tenth of the cost of a general client, which shares the CPUs here."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request and read its answer.

        Raises
        ------
        OSError, asyncio.IncompleteReadError
            The server is gone.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._server.port, limit=LIMIT)
        reader, writer = self._streams
        fields = {
            "Host": "x",
            "Content-Length": str(len(body)),
            **self._server.authorization,
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
            await writer.drain()
            raw = await reader.readuntil(b"\r\n\r\n")
            lines = raw.decode("latin-1").split("\r\n")
            found = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])}
            data = await reader.readexactly(int(found.get("content-length", 0)))
        except BaseException:
            self.close()
            raise
        if found.get("connection") == "close":
            self.close()
        return Answer(int(lines[0].split()[1]), found, data)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
