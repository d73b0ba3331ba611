"""Who gets in, how often, and what every answer and log line carries."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra [api]")

from pydantic import ValidationError

from dermseg.apps.api import keys, limits
from dermseg.apps.api.keys import KeyRing, new_key
from dermseg.apps.api.logs import JsonFormatter
from dermseg.apps.api.problems import problem_of
from dermseg.apps.api.services import Services
from dermseg.apps.api.settings import Settings
from dermseg.apps.cli.main import main
from dermseg.audit import AuditError
from dermseg.errors import DermsegError, ModelError, UsageError

Client = Any  # httpx.Client


def test_only_keys_open_the_door(client: Client, bearer: Callable[..., dict[str, str]]) -> None:
    wrong = [
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer dsk_wrong"},
        {"Authorization": "Basic cmlzOng="},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Authorization": bearer()["Authorization"] + "x"},
    ]
    for headers in wrong:
        for method, path in (
            ("POST", "/v1/segment"),
            ("GET", "/metrics"),
            ("GET", "/v1/none"),
            ("GET", "/x"),
        ):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/models").status_code == 200
    for path in ("/health", "/ready", "/openapi.json"):
        assert client.get(path, headers={"Authorization": ""}).status_code == 200
    for path in ("/health", "/ready"):  # as load balancers ask
        answer = client.head(path, headers={"Authorization": ""})
        assert (answer.status_code, answer.content) == (200, b"")
    for path in ("/metrics", "/v1/models", "/v1/models/tiny", "/v1/audit", "/v1/jobs"):
        said, asked = client.get(path), client.head(path)
        assert (asked.status_code, asked.content) == (said.status_code, b""), path
    # No documentation pages, which would load programs from other places.
    assert {client.get(path).status_code for path in ("/docs", "/redoc", "/..%2f..%2fetc/passwd")} == {404}


def test_a_slash_too_many_leads_nowhere(client: Client) -> None:
    """A redirect names the address that the server sees: behind a proxy with HTTPS, plain HTTP."""
    answer = client.post("/v1/segment/", content=b"x", follow_redirects=False)
    assert answer.status_code == 404 and "location" not in answer.headers
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.delete("/v1/jobs").headers["allow"] == "GET, HEAD, POST"


def test_every_answer_has_the_security_headers(client: Client) -> None:
    for answer in (
        client.get("/health"),
        client.get("/none"),
        client.get("/v1/models", headers={"Authorization": ""}),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


def test_a_request_id_is_taken_over_only_where_it_is_a_uuid(client: Client) -> None:
    given = "5B8D1E0C-7f3a-4c6e-9d2b-1a0f8e7c6d5b"
    answer = client.get("/health", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given  # as the client's log has it, with its dashes
    other = client.get("/health", headers={"X-Request-ID": "Anna Miller 1970"})
    assert "Anna" not in other.headers["x-request-id"]


def test_a_key_has_its_own_rate_and_size(
    serve: Callable[..., Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=lambda seconds: None)
    for module in (keys, limits):
        monkeypatch.setattr(module, "time", clock)
    lines = ["keys:"]
    secrets = {}
    for name, limit in (("slow", "requests_per_minute: 12"), ("small", "max_body_mb: 0.001"), ("free", "")):
        secrets[name], digest = new_key()
        lines += [f"  - id: {name}", f"    sha256: {digest}", *([f"    {limit}"] if limit else [])]
    path = tmp_path / "keys.yaml"
    path.write_text("\n".join(lines))
    client = serve(keys="", keys_file=path)

    def ask(name: str) -> Any:
        headers = {"Authorization": f"Bearer {secrets[name]}"}
        return client.post("/v1/segment", content=b"x" * 2000, headers=headers)

    statuses = [ask("slow").status_code for _ in range(5)]
    assert statuses == [422, 422, 429, 429, 429]  # two at once, then one in five seconds
    clock.now += 4.5
    assert ask("slow").headers["retry-after"] == "1"
    clock.now += 0.5
    assert [ask("slow").status_code for _ in range(2)] == [422, 429]
    assert ask("small").status_code == 413
    assert ask("free").status_code == 422
    # Taking a line out locks the key out, without a restart; a file amid saving does not.
    path.write_text("keys: [")
    clock.now += 1.1
    assert ask("free").status_code == 422
    path.write_text("\n".join(lines[:-2]))
    clock.now += 1.1
    assert (ask("free").status_code, ask("small").status_code) == (401, 413)


def test_the_last_key_can_be_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=lambda seconds: None)
    monkeypatch.setattr(keys, "time", clock)
    path = tmp_path / "keys.yaml"
    secret, digest = new_key()
    whole = f"keys:\n  - id: ris\n    sha256: {digest}\n"
    path.write_text(whole)
    ring = KeyRing(path, f"env={hashlib.sha256(b'dsk_env').hexdigest()}")

    def enters(key: str = secret) -> bool:
        clock.now += 1.1
        return ring.find(f"Bearer {key}") is not None

    assert enters()
    for without in ("keys:\n", "keys: []\n", "# none\n", "", None):
        path.unlink() if without is None else path.write_text(without)
        assert not enters() and not enters() and enters("dsk_env") and not ring.open
        path.write_text(whole)
        assert enters()
    path.write_text("keys: [")  # does not parse: amid saving
    assert enters()
    # Away for a moment only, as an editor does it.
    path.unlink()
    clock.sleep = lambda seconds: path.write_text(whole)
    assert enters()


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
@pytest.mark.parametrize("mended", ["mode", "replaced"])
def test_a_file_of_keys_that_can_be_read_again_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mended: str
) -> None:
    """Saved so that the server could not read it, then mended; before, a key taken away stayed valid."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=lambda seconds: None)
    monkeypatch.setattr(keys, "time", clock)
    path = tmp_path / "keys.yaml"
    (first, old), (second, new) = new_key(), new_key()
    path.write_text(f"keys:\n  - id: ris\n    sha256: {old}\n")
    ring = KeyRing(path)

    def enters(key: str) -> bool:
        clock.now += 1.1
        return ring.find(f"Bearer {key}") is not None

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    text = f"keys:\n  - id: ris\n    sha256: {new}\n"
    with monkeypatch.context() as patch:
        path.write_text(text if mended == "mode" else text.replace(new, "?" * 64))
        os.utime(path, ns=(1, 1))  # as some images of systems have it for all files
        if mended == "mode":
            patch.setattr(Path, "open", refuse)
        assert enters(first) and not enters(second)
    time.sleep(0.01)  # the clock of a file system has steps
    if mended == "mode":
        path.chmod(0o640)
    else:
        other = tmp_path / "other.yaml"
        other.write_text(text)
        os.utime(other, ns=(1, 1))
        other.replace(path)
    assert enters(second) and not enters(first)


def test_https_needs_files_that_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    for name, reason in (("no.pem", "No such file"), ("bad.pem", "HTTPS is not possible")):
        files = ["--tls-cert", str(tmp_path / name), "--tls-key", str(tmp_path / name)]
        with pytest.raises(SystemExit) as stop:
            main(["serve", "--state", str(tmp_path / "state"), *files])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and reason in err and name in err and "Traceback" not in err
        assert not (tmp_path / "state").exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_key_with_a_passphrase_is_refused_instead_of_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "openssl req -x509 -newkey rsa:2048 -keyout key.pem -out cert.pem -subj /CN=x -passout pass:secret"
    )
    subprocess.run(command.split(), check=True, capture_output=True, cwd=tmp_path)
    files = ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    with pytest.raises(SystemExit) as stop:
        main(["serve", "--state", str(tmp_path / "state"), *files])
    assert stop.value.code == 2 and "passphrase" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["", "keys: []", "keys: 3", "keys: [{id: a}]", "keys: [{id: 'a b', sha256: 'x'}]", "keys: [", "\0"],
)
def test_a_wrong_key_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="API key"):
        KeyRing(path)
    with pytest.raises(UsageError, match="read"):
        KeyRing(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="id=sha256") as error:
        KeyRing(None, "ris=dsk_the-key-itself-by-mistake")
    assert "mistake" not in str(error.value)
    with pytest.raises(UsageError, match="share an id"):
        KeyRing(None, f"ris={'a' * 64},ris={'b' * 64}")


def test_new_keys_open_the_door(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["serve", "new-key", "ris"])
    out, err = capsys.readouterr()
    key = err.split()[-1]
    path = tmp_path / "keys.yaml"
    path.write_text("keys:\n" + out)
    found = KeyRing(path).find(f"Bearer {key}")
    assert not stop.value.code and found is not None and found.id == "ris" and key not in out


def test_without_keys_only_this_machine_is_served(tmp_path: Path) -> None:
    Settings(state=tmp_path)
    with pytest.raises(ValidationError, match="without API keys"):
        Settings(state=tmp_path, host="0.0.0.0")
    Settings(state=tmp_path, host="0.0.0.0", keys=f"ris={'a' * 64}")
    with pytest.raises(SystemExit) as stop:
        main(["serve", "--host", "0.0.0.0", "--state", str(tmp_path)])
    assert stop.value.code == 2


def test_logs_say_what_happened_and_nothing_about_anybody(
    client: Client, encoded: Callable[..., bytes], caplog: pytest.LogCaptureFixture
) -> None:
    name = "MILLER^ANNA"
    with caplog.at_level(logging.DEBUG, logger="dermseg"):
        client.post("/v1/segment", files={"image": (f"{name}.png", encoded())}, headers={"X-Patient": name})
        client.get(f"/v1/jobs/{name}?q={name}")
        client.get(f"/{name}")
        client.post("/v1/segment", content=name.encode() * 100, headers={"User-Agent": name})
        deadline = time.monotonic() + 60  # the line is written after the answer
        while sum(r.message == "request" for r in caplog.records) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert name not in "\n".join(lines) and "dsk_" not in "\n".join(lines)
    entries = [json.loads(line) for line in lines if '"route"' in line]
    assert [entry["status"] for entry in entries[-4:]] == [200, 422, 404, 422]
    done = entries[-4]
    assert done["route"] == "/v1/segment" and done["key"] == "ris" and done["network_ms"] >= 0
    assert re.fullmatch(r"\d+:[0-9a-f]{64}", done["audit"])
    assert name not in client.get("/metrics").text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "MILLER^ANNA.png"), "No space left on device"),
        (DermsegError("cannot be written: No space left", file="MILLER^ANNA.png"), "No space left on device"),
        (AuditError("was moved", file="audit.jsonl"), "was moved"),
        (sqlite3.OperationalError("database or disk is full"), "database or disk is full"),
        (ValueError("MILLER^ANNA"), None),
    ],
)
def test_the_log_says_why_nothing_can_be_stored(
    error: Exception, reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, only the kind of error and its place in the code."""
    if isinstance(error, DermsegError):
        error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "MILLER^ANNA.png")
    assert problem_of(error).status == (500 if reason is None else 503)
    (line,) = [JsonFormatter().format(record) for record in caplog.records]
    assert json.loads(line)["reason"] == reason and "MILLER" not in line


def test_what_libraries_remark_is_a_line_of_json_without_its_text() -> None:
    """Before: plain text beside the JSON lines, which may quote what a client sent."""
    text = (
        "import logging; from dermseg.apps.api.logs import configure_logs; configure_logs();"
        "logging.getLogger('python_multipart.multipart').warning('unexpected %r', 'MILLER^ANNA');"
        "logging.getLogger('dermseg.api').info('request')"
    )
    lines = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stderr
    said, own = map(json.loads, lines.splitlines())
    assert (said["level"], said["library"], own["event"]) == (
        "warning",
        "python_multipart.multipart",
        "request",
    )
    assert "MILLER" not in lines


def test_browsers_of_other_places_may_call_only_where_that_is_allowed(serve: Callable[..., Client]) -> None:
    headers = {"Origin": "https://pacs.example", "Access-Control-Request-Method": "POST"}
    allowed = "access-control-allow-origin"
    assert allowed not in serve().options("/v1/segment", headers=headers).headers
    client = serve(cors_origins=("https://pacs.example",))
    answer = client.options("/v1/segment", headers={**headers, "Authorization": ""})
    assert (answer.status_code, answer.headers[allowed]) == (200, "https://pacs.example")
    assert allowed not in client.get("/health", headers={"Origin": "https://other.example"}).headers
    # A page may ask for all that the documentation tells of: the size of a result, and a part of it.
    for method, header in (("HEAD", "authorization"), ("GET", "authorization,if-range,range")):
        asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
        answer = client.options("/v1/jobs/0/result", headers={**headers, **asked})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("https://pacs.example/", "https://pacs.example"),
        ("https://PACS.example:443", "https://pacs.example"),
        ("http://pacs.example:8042/app?x#y", "http://pacs.example:8042"),
        ("pacs.example", "https://pacs.example"),
        ("pacs.example:8042", "https://pacs.example"),
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(tmp_path: Path, given: str, right: str) -> None:
    """Before, it was taken and allowed nothing."""
    with pytest.raises(ValidationError, match=rf"as browsers send it: {re.escape(right)} \[") as error:
        Settings(state=tmp_path, cors_origins=(given,))
    assert len(error.value.errors()) == 1
    assert Settings(state=tmp_path, cors_origins=(right, "*", "null")).cors_origins[0] == right
    with pytest.raises(ValidationError, match="spaces between them"):
        Settings(state=tmp_path, cors_origins=(f"{right},{right}",))


def test_without_keys_no_web_page_gets_at_the_server(
    serve: Callable[..., Client], encoded: Callable[..., bytes], bearer: Callable[..., dict[str, str]]
) -> None:
    """The browser on this machine comes from the loopback too, with pages from anywhere."""
    client = serve(keys="")
    rebound = {"Host": f"evil.example:{client.base_url.port}"}  # its own name with the address 127.0.0.1
    for method, path in (("GET", "/v1/jobs"), ("GET", "/metrics"), ("POST", "/v1/segment")):
        answer = client.request(method, path, headers=rebound)
        assert answer.status_code == 403 and "keys" in answer.json()["hint"]
    for origin in ("https://evil.example", "null"):  # what a form of any page may send unasked
        answer = client.post("/v1/segment", content=encoded(), headers={"Origin": origin})
        assert answer.status_code == 403 and "audit-record" not in answer.headers
    for headers in (
        {},
        {"Host": "localhost:1"},
        {"Host": "[::1]"},
        {"Origin": str(client.base_url).rstrip("/")},
    ):
        assert client.post("/v1/segment", content=encoded(), headers=headers).status_code == 200, headers
    assert client.get("/health", headers=rebound).status_code == 200
    allowed = serve(keys="", cors_origins=("https://pacs.example",))
    page = {"Origin": "https://pacs.example"}
    assert allowed.post("/v1/segment", content=encoded(), headers=page).status_code == 200
    # A key is what no page of another place has, so with keys any name and any page will do.
    elsewhere = {"Host": "dermseg.clinic.example", "Origin": "https://evil.example", **bearer()}
    assert serve().get("/v1/jobs", headers=elsewhere).status_code == 200


def test_a_port_that_is_taken_is_said_in_words(tiny_bundle: Path, tmp_path: Path) -> None:
    program = [
        sys.executable,
        "-m",
        "dermseg.apps.cli.main",
        "serve",
    ]  # its logging would stay in this process
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = ["--port", str(taken.getsockname()[1]), "--state", str(tmp_path / "state")]
        ended = subprocess.run(
            [*program, *place, "--model", str(tiny_bundle)], capture_output=True, text=True, check=False
        )
    assert ended.returncode == 2
    assert "error: cannot listen on 127.0.0.1:" in ended.stderr


def test_a_server_does_not_start_on_what_it_cannot_trust(tiny_bundle: Path, tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "state", models=(str(tiny_bundle),), workers=1)
    services = Services.start(settings)
    with pytest.raises(UsageError, match="another server"):
        Services.start(settings)
    services.stop()
    tampered = tmp_path / "bundle"
    tampered.mkdir()
    for path in tiny_bundle.iterdir():
        (tampered / path.name).write_bytes(path.read_bytes())
    (tampered / "model.onnx").write_bytes((tiny_bundle / "model.onnx").read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="sha256"):
        Services.start(settings.model_copy(update={"models": (str(tampered),)}))
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(b"\x80\x04\x95cos\nsystem\n(S'echo owned'\ntR.")
    with pytest.raises(ModelError, match="not a zip"):
        Services.start(settings.model_copy(update={"models": (str(pickled),)}))


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_a_folder_that_is_there_keeps_its_mode_and_what_is_put_there_is_private(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "volume"
    state.mkdir()
    state.chmod(0o775)
    change = Path.chmod

    def refuse(path: Path, mode: int) -> None:
        if path == state:  # a volume of a container belongs to root, its group may write
            raise PermissionError(errno.EPERM, "Operation not permitted")
        change(path, mode)

    monkeypatch.setattr(Path, "chmod", refuse)
    Services.start(Settings(state=state, models=(str(tiny_bundle),), workers=1)).stop()
    assert stat.S_IMODE(state.stat().st_mode) == 0o775
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    names = ("jobs", "jobs.sqlite3", "audit.jsonl", "audit.jsonl.head")
    assert [modes[name] for name in names] == [0o700, 0o600, 0o600, 0o600]
