"""Downloads against a local server that behaves as badly as servers and lines do."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermseg.data import fetch as fetch_module
from dermseg.data.download import download, download_archive, plan
from dermseg.data.fetch import fetch
from dermseg.data.remote import remote_info
from dermseg.errors import DataError, DownloadError, MissingExtraError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
OTHER = np.random.default_rng(1).bytes(2_500_000)


@dataclass
class Behaviour:
    """What the server does. ``script`` has one word per GET; when it is used up, it behaves well."""

    content: bytes = CONTENT
    script: list[str] = field(default_factory=list)
    etag: bool = True
    ranges: list[str] = field(default_factory=list)  # of every GET, "" without a Range header
    heads: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.behaviour.heads += 1
        if self.path.endswith("/gone.zip"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.behaviour.content)))
        self.end_headers()

    def do_GET(self) -> None:
        state = self.behaviour
        asked = self.headers.get("Range", "")
        state.ranges.append(asked)
        word = state.script.pop(0) if state.script else "well"
        if word.isdecimal():  # an error status
            self.send_response(int(word))
            self.send_header("Content-Length", "4")
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(b"oops")
            return
        if word == "drop":
            self.close_connection = True
            return
        if word == "redirect":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if word == "change":
            state.content = OTHER
        content = state.content
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if asked and word != "ignore" and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if word == "shift":  # a wrong answer: not the range that was asked for
            start = min(start + 100, len(content) - 1)
        body = content[start:]
        self.send_response(206 if asked and start else 200)
        if word == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        if state.etag:
            self.send_header("ETag", etag)
        if asked and start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if word == "chunked":
            for i in range(0, len(body), 700_000):
                piece = body[i : i + 700_000]
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        elif word == "break":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif word == "stall":
            self.wfile.write(body[: len(body) // 3])
            self.wfile.flush()
            threading.Event().wait(1.0)
            self.close_connection = True
        else:
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Behaviour]]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    behaviour = Behaviour()
    handler = type("Bound", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", behaviour
        running.shutdown()
        thread.join()


def get(url: str, target: Path, timeout_s: float = 60, **options: Any) -> Any:
    return fetch(url, target, backoff_s=0.01, timeout_s=timeout_s, **options)


@pytest.mark.parametrize(
    ("script", "content"),
    [
        ([], CONTENT),
        (["break", "break", "break"], CONTENT),
        (["503", "drop", "429", "500"], CONTENT),
        (["break", "ignore"], CONTENT),
        (["break", "change"], OTHER),
        (["break", "change", "break"], OTHER),
        (["break", "shift"], CONTENT),
        (["stall"], CONTENT),
        (["redirect", "redirect"], CONTENT),
        (["chunked"], CONTENT),
        (["break", "416"], CONTENT),
    ],
    ids=lambda value: "-".join(value) or "well" if isinstance(value, list) else "",
)
def test_the_file_is_whole_in_the_end(
    tmp_path: Path, server: tuple[str, Behaviour], script: list[str], content: bytes
) -> None:
    url, behaviour = server
    behaviour.script = list(script)
    seen: list[int] = []
    timeout_s = 0.5 if "stall" in script else 60  # elsewhere, a busy machine is no failure of the server
    got = get(f"{url}/a.zip", tmp_path / "a.zip", timeout_s, progress=lambda done, _: seen.append(done))
    assert (tmp_path / "a.zip").read_bytes() == content
    assert (got.size, got.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert seen[-1] == len(content)


def test_a_later_call_goes_on_where_the_first_gave_up(tmp_path: Path, server: tuple[str, Behaviour]) -> None:
    url, behaviour = server
    behaviour.script = ["break", "503", "503"]
    with pytest.raises(DownloadError, match="gave up after 3 failures"):
        get(f"{url}/a.zip", tmp_path / "a.zip", retries=2)
    half = len(CONTENT) // 2
    assert (tmp_path / "a.zip.part").stat().st_size == half
    assert not (tmp_path / "a.zip").exists()
    behaviour.ranges.clear()
    get(f"{url}/a.zip", tmp_path / "a.zip")
    assert behaviour.ranges == [f"bytes={half}-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_part_of_unknown_origin_is_not_trusted(tmp_path: Path, server: tuple[str, Behaviour]) -> None:
    """Without a note, with the note of another address, or from a server that names no version."""
    url, behaviour = server
    part, note = tmp_path / "a.zip.part", tmp_path / "a.zip.part.json"
    part.write_bytes(b"x" * 1000)
    get(f"{url}/a.zip", tmp_path / "a.zip")
    part.write_bytes(b"x" * 1000)
    note.write_text(json.dumps({"url": "http://other/", "size": 5000, "etag": '"e"', "last_modified": None}))
    get(f"{url}/a.zip", tmp_path / "a.zip")
    behaviour.etag, behaviour.script = False, ["break"]
    get(f"{url}/a.zip", tmp_path / "a.zip")
    assert behaviour.ranges == ["", "", "", ""]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_that_always_breaks_off_is_given_up(tmp_path: Path, server: tuple[str, Behaviour]) -> None:
    url, behaviour = server
    behaviour.etag, behaviour.script = False, ["break"] * 50
    with pytest.raises(DownloadError, match="gave up"):
        get(f"{url}/a.zip", tmp_path / "a.zip", retries=3)
    assert len(behaviour.ranges) == 4  # only the first gains anything


def test_errors_that_repetition_does_not_cure(tmp_path: Path, server: tuple[str, Behaviour]) -> None:
    url, behaviour = server
    behaviour.script = ["403"]
    with pytest.raises(DownloadError, match="403"):
        get(f"{url}/a.zip", tmp_path / "a.zip")
    assert len(behaviour.ranges) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="only http"):
        get("file:///etc/passwd", tmp_path / "a.zip")
    with pytest.raises(DownloadError, match="404"):
        remote_info(f"{url}/gone.zip")


def test_a_full_disk_is_noticed_before(
    tmp_path: Path, server: tuple[str, Behaviour], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, behaviour = server
    monkeypatch.setattr(fetch_module, "SPARE_BYTES", 1 << 60)  # more than any disk has
    with pytest.raises(DataError, match="GB are free"):
        download("isic2018", tmp_path, mirror=url)
    assert behaviour.ranges == []
    assert behaviour.heads == 6


def test_a_data_set_comes_with_licence_and_record(tmp_path: Path, server: tuple[str, Behaviour]) -> None:
    url, behaviour = server
    behaviour.script = ["break", "well", "503"]
    options: dict[str, Any] = {"parts": ["validation"], "mirror": f"{url}/", "backoff_s": 0.01}
    files = download("isic2018", tmp_path, **options)
    assert [file.name for file in files] == [
        "ISIC2018_Task1-2_Validation_Input.zip",
        "ISIC2018_Task1_Validation_GroundTruth.zip",
    ]
    assert all(file.fetched and file.path.read_bytes() == CONTENT for file in files)
    notice = (tmp_path / "LICENCE.txt").read_text()
    assert "CC-BY-NC-4.0" in notice
    assert "Codella" in notice
    record = json.loads((tmp_path / "downloads.json").read_text())
    assert record[files[0].name]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    behaviour.ranges.clear()
    assert not any(file.fetched for file in download("isic2018", tmp_path, **options))
    files[1].path.write_bytes(b"cut off")
    assert [file.fetched for file in download("isic2018", tmp_path, **options)] == [False, True]
    assert len(behaviour.ranges) == 1
    (tmp_path / "downloads.json").unlink()
    with pytest.raises(DataError, match="nothing says that it is whole"):
        download("isic2018", tmp_path, **options)


def test_plan() -> None:
    assert len(plan("ham10000")) == 4
    assert all(file.url.startswith("https://") for kind in ("isic2016", "isic2017") for file in plan(kind))
    with pytest.raises(DataError, match="no part 'night'"):
        plan("isic2018", ["night"])
    with pytest.raises(DataError, match="no public address"):
        plan("ph2")


ISIC_CLI = """
import csv, pathlib, sys
# Does what isic-cli 12 does: writes what it gets, and reports success when a download thread failed.
assert sys.argv[1:3] == ["image", "download"], sys.argv
folder = pathlib.Path(sys.argv[-1])
runs = folder / "runs.log"
runs.open("a").write(" ".join(sys.argv[3:-1]) + "\\n")
ids = ["ISIC_0000001", "ISIC_0000002"]
fails = pathlib.Path(__file__).with_name("fails")
for name in ids:
    if name == ids[1] and fails.exists():
        fails.unlink()
        continue
    (folder / f"{name}.jpg").write_bytes(name.encode())
with (folder / "metadata.csv").open("w", newline="") as out:
    table = csv.DictWriter(out, ["isic_id", "attribution", "copyright_license"])
    table.writeheader()
    table.writerows({"isic_id": name, "attribution": "A", "copyright_license": "CC-0"} for name in ids)
sys.exit(3 if "--search" in sys.argv and "broken" in sys.argv else 0)
"""


def test_archive_images_that_failed_in_silence_are_fetched_again(tmp_path: Path) -> None:
    program = tmp_path / "isic.py"
    program.write_text(ISIC_CLI)
    (tmp_path / "fails").touch()
    command = [sys.executable, str(program)]
    target = tmp_path / "archive"
    report = download_archive(target, search="sex:male", limit=2, command=command)
    assert (report["images"], report["missing"], report["licences"]) == (2, [], {"CC-0": 2})
    assert (target / "runs.log").read_text() == "--search sex:male --limit 2\n" * 2
    record = json.loads((target / "downloads.json").read_text())
    assert record["ISIC_0000002.jpg"]["sha256"] == hashlib.sha256(b"ISIC_0000002").hexdigest()
    (tmp_path / "fails").touch()
    (target / "ISIC_0000002.jpg").unlink()
    with pytest.raises(DataError, match="1 of 2 images are missing"):
        download_archive(target, attempts=1, command=command)
    with pytest.raises(DataError, match="code 3"):
        download_archive(target, search="broken", command=command)


def test_archive_without_isic_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isic_cli", None)
    with pytest.raises(MissingExtraError, match="download"):
        download_archive(tmp_path)


def test_an_archive_out_of_reach_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dermseg.data.download.importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("dermseg.data.download.ARCHIVE", "http://127.0.0.1:1/")
    with pytest.raises(DownloadError, match="the ISIC archive cannot be reached"):
        download_archive(tmp_path)
