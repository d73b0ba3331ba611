"""Archives as they are: they refuse with 409, list what they cannot give, know implicit VR only."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import requests
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.pdu import P_DATA_TF

from dermseg.dicom import watch
from dermseg.dicom.config import PacsConfig, Send
from dermseg.dicom.queue import Queue
from dermseg.dicom.send import SendError, send, web_client
from dermseg.dicom.watch import Watcher
from dermseg.errors import ConfigError

Answer = tuple[int, str, bytes]
JSON = "application/dicom+json"


class Web:
    """A DICOMweb archive: ``answer(method, path)`` says what it says; ``asked`` is what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str], Answer] = lambda method, path: (200, JSON, b"[]")
        self.asked: list[str] = []
        self.shown: str | None = None  # the Authorization of the last request
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _go(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append(f"{self.command} {self.path}")
                outer.shown = self.headers.get("Authorization")
                status, kind, body = outer.answer(self.command, self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _go  # noqa: N815 - the names of http.server

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/dicom-web"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web() -> Iterator[Web]:
    archive = Web()
    yield archive
    archive.server.shutdown()
    archive.server.server_close()


def failed(reason: int) -> bytes:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def listed(*uids: str) -> bytes:
    tags = ("00080018", "0020000D", "0020000E")
    items = [{tag: {"vr": "UI", "Value": [uid]} for tag in tags} for uid in uids]
    classes = {"00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.77.1.7"]}}
    return json.dumps([{**item, **classes} for item in items]).encode()


NAMED = b'{"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["UID"]}}]}}'


@pytest.mark.parametrize(
    ("status", "kind", "body", "there", "refused"),
    [
        (200, JSON, NAMED, False, None),
        (200, f"{JSON}; charset=utf-8", NAMED, False, None),
        (200, JSON, b"{}", True, None),  # says nothing of it
        (200, JSON, b"{}", False, "does not say that it stored"),
        (200, JSON, NAMED.replace(b"UID", b"1.2"), False, "does not say"),  # changed its UID
        (204, "text/plain", b"", False, "does not say"),
        (200, JSON, b"[{}]", False, "does not say"),
        (200, JSON, b'{"0008', True, None),
        (200, "application/dicom+xml", b"<half", False, "does not say"),
        (200, "text/html; charset=utf-8", b"<form>", False, "web page; is it a login"),  # of a proxy
        (202, JSON, failed(0xA700), False, "A700"),
        (202, f"{JSON}; charset=utf-8", failed(0xA700), False, "A700"),
        (200, JSON, failed(0x0111), False, None),
        (409, JSON, failed(0x0111), False, None),
        (409, JSON, failed(0x0122), False, "HTTP 409"),  # does not take this class: nothing was stored
        (409, JSON, failed(0xB00E), True, None),  # a code of its own for what it has already
        (409, "text/plain", b"no", True, None),
        (409, "text/plain", b"no", False, "HTTP 409"),
    ],
)
def test_stored_is_what_the_archive_has(
    web: Web,
    files: ModuleType,
    status: int,
    kind: str,
    body: bytes,
    there: bool,
    refused: str | None,
) -> None:
    ds = files.photograph()
    found = listed(ds.SOPInstanceUID) if there else listed("1.2.3")  # some ignore what is searched for
    body = body.replace(b"UID", ds.SOPInstanceUID.encode())
    web.answer = lambda method, path: (status, kind, body) if method == "POST" else (200, JSON, found)
    target = Send.model_validate({"web": {"url": web.url}})
    if refused is None:
        send([ds], target)
    else:
        with pytest.raises(SendError, match=refused):
            send([ds], target)


def test_an_archive_that_only_takes_is_believed(web: Web, files: ModuleType) -> None:
    """Without QIDO-RS there is nobody to ask."""
    web.answer = lambda method, path: (200 if method == "POST" else 501, "text/plain", b"")
    send([files.photograph()], Send.model_validate({"web": {"url": web.url}}))
    assert [line.split()[0] for line in web.asked] == ["POST", "GET"]


def test_an_archive_that_does_not_answer_is_given_up(web: Web, files: ModuleType) -> None:
    reached, given_up = threading.Event(), threading.Event()

    def slow(method: str, path: str) -> Answer:
        reached.set()
        given_up.wait(60)
        return 200, JSON, b"{}"

    web.answer = slow
    target = Send.model_validate({"web": {"url": web.url, "timeout_s": 0.2}})
    with pytest.raises(SendError, match="ReadTimeout"):
        send([files.photograph()], target)
    assert reached.wait(60)  # a busy machine may read what was sent only now
    assert len(web.asked) == 1  # the queue tries again, nobody else
    given_up.set()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{closed}", "Connection refused"),
        ("https://127.0.0.1:{open}", "wrong version number|record"),
    ],
)
def test_why_an_archive_is_away_is_said(web: Web, files: ModuleType, url: str, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    target = Send.model_validate({"web": {"url": url.format(closed=closed, open=web.server.server_port)}})
    with pytest.raises(SendError, match=reason):
        send([files.photograph()], target)


def test_the_environment_does_not_change_who_is_trusted_and_who_asks(
    web: Web, files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests lets REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and .netrc have precedence."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "others.pem"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("TOKEN", "secret\n")
    settings = {"url": web.url, "authority": requests.certs.where(), "token_env": "TOKEN"}
    client = web_client(Send.model_validate({"web": settings}).web)
    merged = client._session.merge_environment_settings(web.url, {}, None, None, None)
    assert merged["verify"] == settings["authority"]
    web.answer = lambda method, path: (200, JSON, b"[]")
    client.search_for_studies()
    assert web.shown == "Bearer secret"
    (tmp_path / "words").write_text("none")
    for name, reason in (("missing", "authority: No such file"), ("words", "holds no certificates")):
        with pytest.raises(ConfigError, match=reason):
            send([], Send.model_validate({"web": settings | {"authority": str(tmp_path / name)}}))


def test_passwords_may_have_umlauts(web: Web, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("Grüße€1\n", encoding="utf-8-sig")
    settings = {"url": web.url, "user": "dermatologie", "password_file": str(tmp_path / "password")}
    target = Send.model_validate({"web": settings})
    web_client(target.web).search_for_studies()
    assert web.shown == "Basic " + base64.b64encode("dermatologie:Grüße€1".encode()).decode()
    (tmp_path / "password").write_bytes("Grüße1".encode("cp1252"))
    with pytest.raises(ConfigError, match="UTF-8"):
        web_client(target.web)


def test_what_is_listed_and_not_given_keeps_nobody_waiting(
    web: Web, files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(watch, "time", clock)
    uids = ["1.1", "1.2", "1.3"]
    bodies = {uid: files.to_bytes(files.photograph(SOPInstanceUID=uid)) for uid in uids}
    broken = {"1.1": (404, "text/plain", b"off line"), "1.2": part(b"no DICOM")}

    def answer(method: str, path: str) -> Answer:
        if "/instances/" in path:
            uid = path.rpartition("/")[2]
            return broken.get(uid) or part(bodies[uid])
        if "offset=0" not in path:
            return 200, JSON, b"[]"
        study = path.partition("/studies/")[2].partition("/")[0]
        return 200, JSON, listed(study) if study else listed(*uids)

    web.answer = answer
    watcher = watching(web, tmp_path)
    queue = watcher.queue
    assert watcher.poll() == 1 and [job.image_uid for job in queue.listed("received")] == ["1.3"]
    asked = len([line for line in web.asked if "/instances/" in line])
    assert watcher.poll() == 0  # not at once again
    assert len([line for line in web.asked if "/instances/" in line]) == asked
    broken.clear()
    clock.now += 0.35
    assert watcher.poll() == 2 and queue.counts()["received"] == 3
    web.server.shutdown()
    web.server.server_close()
    with pytest.raises(requests.ConnectionError):  # an archive that is away is another matter
        watcher.poll()
    queue.close()


def watching(web: Web, folder: Path, **secret: str) -> Watcher:
    archive = {"url": web.url, **secret}
    config = PacsConfig.model_validate(
        {
            "folder": folder / "q",
            "send": {"web": archive},
            "watch": {"web": archive, "modalities": ["DMS"], "days": None, "poll_s": 0.02},
            "retry": {"first_s": 0.3, "longest_s": 0.3},
        }
    )
    assert config.watch is not None
    worker: Any = SimpleNamespace(work_key="k")
    return Watcher(Queue(config.folder), worker, config, config.watch)


def test_a_watch_that_is_stopped_does_not_fetch_the_rest(web: Web, files: ModuleType, tmp_path: Path) -> None:
    """Before, Ctrl-C and SIGTERM waited for the end of a poll: of the first one of an archive, for hours."""
    stop = threading.Event()

    def answer(method: str, path: str) -> Answer:
        if "/instances/" in path:
            stop.set()
            return part(files.to_bytes(files.photograph(SOPInstanceUID=path.rpartition("/")[2])))
        return 200, JSON, listed("1.1", "1.2", "1.3") if "offset=0" in path else b"[]"

    web.answer = answer
    watcher = watching(web, tmp_path)
    watcher.run(stop)
    assert len([line for line in web.asked if "/instances/" in line]) == 1
    assert watcher.queue.counts()["received"] == 1
    assert watcher.queue.study_changed("1.1", 3)  # what is left is fetched at the next start
    watcher.queue.close()


def test_a_watch_takes_a_new_password(web: Web, tmp_path: Path) -> None:
    """As sending does; before, it was refused until the service was started again."""
    (tmp_path / "password").write_text("old")
    watcher = watching(web, tmp_path, user="me", password_file=str(tmp_path / "password"))
    for password in ("old", "new"):
        (tmp_path / "password").write_text(password)
        watcher.poll()
        assert web.shown == "Basic " + base64.b64encode(f"me:{password}".encode()).decode()
    watcher.queue.close()


def part(data: bytes) -> Answer:
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n"
    return 200, 'multipart/related; type="application/dicom"; boundary="b"', body


def test_an_archive_that_hangs_amid_an_object_is_given_up(files: ModuleType) -> None:
    """Before, nothing was sent any more, without a word, and the service could not be stopped."""
    ds = files.photograph(kind="capture")
    ds.PixelData = bytes(16_000_000)  # more than is under way
    awake = threading.Event()
    failures: list[SendError] = []

    def hang(event: Any) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            awake.wait(120)

    entity = AE(ae_title="HUNG")
    entity.add_supported_context(ds.SOPClassUID)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_PDU_RECV, hang)])
    place = {"host": "127.0.0.1", "port": server.socket.getsockname()[1], "timeout_s": 0.5}

    def attempt() -> None:
        try:
            send([ds], Send.model_validate({"dimse": {"ae_title": "HUNG", **place}}))
        except SendError as error:
            failures.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(60)
    ended = not thread.is_alive()
    awake.set()
    server.shutdown()
    assert ended and not failures[0].final


@pytest.mark.parametrize("syntaxes", [["1.2.840.10008.1.2"], None])
def test_old_archives_take_implicit_vr_and_others_take_nothing(
    files: ModuleType, syntaxes: list[str] | None
) -> None:
    ds = files.photograph(kind="capture")
    stored: list[Dataset] = []

    def store(event: Any) -> int:
        stored.append(event.dataset)
        return 0

    entity = AE(ae_title="OLD")
    if syntaxes is None:
        entity.add_supported_context("1.2.840.10008.1.1")
    else:
        entity.add_supported_context(ds.SOPClassUID, syntaxes)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    port = server.socket.getsockname()[1]
    target = Send.model_validate({"dimse": {"ae_title": "OLD", "host": "127.0.0.1", "port": port}})
    try:
        if syntaxes is None:
            with pytest.raises(SendError, match="takes none of Secondary Capture") as refusal:
                send([ds], target)
            assert refusal.value.final
        else:
            send([ds], target)
            assert stored[0].PatientName == ds.PatientName and stored[0].PixelData == ds.PixelData
    finally:
        server.shutdown()
