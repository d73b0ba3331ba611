"""Batch jobs: what was accepted is done exactly once, whatever happens to the server."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra [api]")

from dermseg.apps.api import job_runner, routes_jobs
from dermseg.apps.api.job_store import Job, JobStore, StoreError
from dermseg.apps.api.services import MIN_FREE_BYTES
from dermseg.apps.cli.main import main
from dermseg.audit import AuditError, verify
from dermseg.errors import DermsegError
from dermseg.inference import journal

Client = Any  # httpx.Client
Make = Callable[..., bytes]
ZIP = {"Content-Type": "application/zip"}


def pack(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def photographs(encoded: Make) -> dict[str, bytes]:
    """Five images in two folders, one of them damaged."""
    files = {f"visit{i % 2}/{i}.png": encoded(".png", i) for i in range(4)}
    return {**files, "visit1/torn.png": encoded()[:400]}


def wait(client: Client, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
        if found["state"] == "done":
            return found
        assert found["state"] in ("queued", "running"), found
        time.sleep(0.05)
    raise AssertionError(f"not done in time: {found}")


def test_a_job_gives_what_the_command_writes(
    client: Client, tiny_bundle: Path, tmp_path: Path, photographs: dict[str, bytes]
) -> None:
    accepted = client.post("/v1/jobs?probabilities=true", content=pack(photographs), headers=ZIP)
    assert accepted.status_code == 202, accepted.text
    job = accepted.json()["id"]
    assert accepted.headers["location"] == f"/v1/jobs/{job}" and accepted.json()["images"] == 5
    done = wait(client, job)
    assert (done["done"], done["ok"], done["failed"], done["no_lesion"]) == (5, 4, 1, 0)
    archive = zipfile.ZipFile(io.BytesIO(client.get(done["result"]).content))
    found = {name: archive.read(name) for name in archive.namelist()}

    path = tmp_path / "input.zip"
    path.write_bytes(pack(photographs))
    with pytest.raises(SystemExit):
        arguments = ["--model", str(tiny_bundle), "--save", "mask,overlay,probability"]
        main(["segment", str(path), "-o", str(tmp_path / "out"), "--runtime", "onnxruntime", *arguments])
    expected = {
        file.relative_to(tmp_path / "out").as_posix(): file.read_bytes()
        for file in (tmp_path / "out").rglob("*")
        if file.is_file() and file.name != "journal.jsonl"
    }
    assert found.keys() == expected.keys()
    assert all(found[name] == data for name, data in expected.items() if name.endswith((".png", ".jpg")))
    rows = [list(csv.DictReader(io.StringIO(text["results.csv"].decode()))) for text in (found, expected)]
    assert [{**row, "seconds": ""} for row in rows[0]] == [{**row, "seconds": ""} for row in rows[1]]
    said = [
        re.findall(r"<dt>Options</dt><dd>.*?</dd>", text["report.html"].decode())
        for text in (found, expected)
    ]
    assert len(said[0]) == 1 and said[0] == said[1]
    # Four records, one for each mask; none for the torn file. And nothing is kept but the result.
    records = [json.loads(line) for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    results = [(r["subject"], r["output_sha256"]) for r in records if r["event"] == "result"]
    assert len(results) == 4 and results == [
        (f"job/{job}/{number}", hashlib.sha256(found[row["mask"]]).hexdigest())
        for number, row in enumerate(rows[0], 1)
        if row["mask"]
    ]
    assert names_in(tmp_path / "state" / "jobs" / job) == ["result.zip"]


def test_an_accepted_job_is_on_the_disk_to_its_last_byte(
    client: Client, encoded: Make, monkeypatch: Any
) -> None:
    """Before, the last kilobytes were not, with the directory of the zip; of a small one, nothing."""
    sizes, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (sizes.append(os.fstat(file).st_size), fsync(file)))
    body = pack({"a.png": encoded(".png", 0, (30, 30))})
    assert client.post("/v1/jobs", content=body, headers=ZIP).status_code == 202
    assert sizes[0] == len(body)


def test_the_same_idempotency_key_gives_the_same_job(
    client: Client, photographs: dict[str, bytes], bearer: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    headers = {**ZIP, "Idempotency-Key": "visit-17"}
    body = pack(photographs)
    first = client.post("/v1/jobs", content=body, headers=headers)
    again = [client.post("/v1/jobs", content=body, headers=headers) for _ in range(3)]
    assert first.status_code == 202 and {a.status_code for a in again} == {200}
    assert {a.json()["id"] for a in again} == {first.json()["id"]}
    other = client.post("/v1/jobs?tta=true", content=body, headers=headers)
    assert other.status_code == 409 and other.json()["type"].endswith("idempotency")
    assert "parameters" in other.json()["detail"]
    # As a zip that is made anew: before, it was "other content", and so was that of the documentation.
    anew = client.post("/v1/jobs", content=pack(photographs | {"a.txt": b""}), headers=headers)
    assert anew.status_code == 409 and "zip -X" in anew.json()["hint"]
    assert client.post("/v1/jobs", content=body, headers={**ZIP, "Idempotency-Key": "a b"}).status_code == 422
    # Another key's jobs are its own: neither seen nor shared.
    theirs = client.post("/v1/jobs", content=body, headers={**headers, **bearer("viewer")})
    assert theirs.status_code == 202 and theirs.json()["id"] != first.json()["id"]
    for path in ("", "/result"):
        url = f"/v1/jobs/{first.json()['id']}{path}"
        assert client.get(url, headers=bearer("viewer")).status_code == 404
    assert client.delete(f"/v1/jobs/{first.json()['id']}", headers=bearer("viewer")).status_code == 404
    assert [job["id"] for job in client.get("/v1/jobs").json()["jobs"]] == [first.json()["id"]]
    assert len(names_in(tmp_path / "state" / "jobs")) == 2


def test_a_result_is_fetched_in_parts(client: Client, photographs: dict[str, bytes], tmp_path: Path) -> None:
    """As download managers and gateways do: they ask for the size first, and go on where they broke off."""
    job = client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"]
    url = f"/v1/jobs/{wait(client, job)['id']}/result"
    whole = client.get(url).content
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(whole)
    part = client.get(url, headers={"Range": "bytes=10-19", "If-Range": head.headers["etag"]})
    assert (part.status_code, part.content) == (206, whole[10:20])
    behind = client.get(url, headers={"Range": f"bytes={len(whole)}-"})
    assert behind.status_code == 416  # older Starlettes leave out the unit
    assert behind.headers["content-range"] in (f"bytes */{len(whole)}", f"*/{len(whole)}")
    assert behind.headers["content-type"] == "application/problem+json" and behind.json()["request_id"]
    for unknown in ("lines=1-2", "bytes=abc", "bytes=5-1"):  # passed over (RFC 9110, 14.2)
        answer = client.get(url, headers={"Range": unknown})
        assert (answer.status_code, answer.content) == (200, whole)
    # As of a backup without its largest files: before, "the job failed".
    (tmp_path / "state" / "jobs" / job / "result.zip").unlink()
    gone = client.get(url)
    assert gone.status_code == 410 and "removed" in gone.json()["detail"]


def bomb_directory() -> bytes:
    """An end record that promises a directory of 400 MB."""
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, 400_000_000, 0, 0)
    return bytes(1000) + end


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not a zip", 400),
        (pack({"readme.txt": b"hello"}), 422),
        (pack({}), 422),
        (b"PK\x05\x06" + bytes(18), 422),
        (bomb_directory(), 413),
        (pack({"a.png": b"x"})[:-30], 400),
        (b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + bytes(18), 413),
    ],
    # pytest would name tests after the bytes, which hold the time of day
    ids=["empty", "text", "no image", "no member", "end only", "large directory", "cut", "zip64"],
)
def test_what_is_no_zip_of_images_is_refused(
    client: Client, tmp_path: Path, body: bytes, status: int
) -> None:
    answer = client.post("/v1/jobs", content=body, headers=ZIP)
    assert answer.status_code == status, answer.text
    assert names_in(tmp_path / "state" / "jobs") == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at open files as Linux shows them")
def test_nothing_of_a_refused_zip_stays_open(
    client: Client, photographs: dict[str, bytes], monkeypatch: Any
) -> None:
    """Before, the last four kept their place on the disk, and up to 300 MB of memory each."""
    monkeypatch.setattr(JobStore, "next", lambda store: None)  # nothing is worked on, which closes zips too

    def lost() -> list[str]:
        found = []
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found.append(str(link.readlink()))
        return [name for name in found if "input.zip (deleted)" in name]

    headers = {**ZIP, "Idempotency-Key": "visit-17"}
    answers = [client.post("/v1/jobs", content=pack(photographs), headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 200] and lost() == []
    assert client.post("/v1/jobs", content=pack({"a.txt": b"x"}), headers=ZIP).status_code == 422
    assert lost() == []
    assert client.delete(f"/v1/jobs/{answers[0].json()['id']}").status_code == 204
    assert lost() == []


def test_limits_of_jobs(serve: Callable[..., Client], photographs: dict[str, bytes], tmp_path: Path) -> None:
    client = serve(max_job_images=3, max_job_mb=1)
    assert client.post("/v1/jobs", content=pack(photographs), headers=ZIP).status_code == 413
    assert client.post("/v1/jobs", content=bytes(1_100_000), headers=ZIP).status_code == 413
    assert (
        client.post("/v1/jobs", content=pack(photographs), headers={"Content-Type": "a/b"}).status_code == 415
    )
    assert client.get("/v1/jobs/" + "0" * 32).status_code == 404


def test_a_job_whose_end_cannot_be_noted_goes_on_later(
    serve: Callable[..., Client], photographs: dict[str, bytes], tmp_path: Path, monkeypatch: Any
) -> None:
    """As on a full disk: neither its end nor its failure can be written, until there is room again."""
    refusals, end = [1, 2], JobStore.end

    def full(*arguments: Any, **options: Any) -> bool:
        if refusals:
            refusals.pop()
            raise sqlite3.OperationalError("database or disk is full")
        return end(*arguments, **options)

    monkeypatch.setattr(JobStore, "end", full)
    monkeypatch.setattr(job_runner, "_RETRY_S", 0.05)
    client = serve()
    job = client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"]
    assert wait(client, job)["ok"] == 4 and not refusals
    lines = [json.loads(line) for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    assert len([line for line in lines if line["event"] == "result"]) == 4


@pytest.mark.parametrize("refused", [OSError(errno.ENOSPC, "No space left"), AuditError("was moved")])
def test_a_full_disk_delays_a_job_and_does_not_end_it(
    serve: Callable[..., Client], photographs: dict[str, bytes], monkeypatch: Any, refused: Exception
) -> None:
    """Before: it failed for good, or hung where the database could not note that either."""
    full, tried, pack_result = threading.Event(), Counter[str](), job_runner.pack_result

    def refuse(name: str, plain: Callable[..., Any], error: Exception) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if full.is_set():
                tried[name] += 1
                raise error
            return plain(*arguments, **options)

        return call

    no_room = sqlite3.OperationalError("database or disk is full")
    for name in ("end", "recover"):
        monkeypatch.setattr(JobStore, name, refuse(name, getattr(JobStore, name), no_room))
    monkeypatch.setattr(job_runner, "pack_result", refuse("pack", pack_result, refused))
    monkeypatch.setattr(job_runner, "_RETRY_S", 0.05)
    client = serve()
    full.set()
    job = client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"]
    deadline = time.monotonic() + 60
    while tried["recover"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    full.clear()
    assert wait(client, job)["ok"] == 4
    assert (tried["pack"], tried["end"]) == (1, 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let go of an open file")
def test_a_job_waits_for_an_audit_log_that_was_moved(
    serve: Callable[..., Client], photographs: dict[str, bytes], tmp_path: Path, monkeypatch: Any
) -> None:
    """Before, its second try failed for good: that one looks into the log for what it has already."""
    monkeypatch.setattr(job_runner, "_RETRY_S", 0.05)
    client = serve()
    log = tmp_path / "state" / "audit.jsonl"
    log.rename(tmp_path / "elsewhere")
    job = client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"]
    result = tmp_path / "state" / "jobs" / job / "result.zip"
    tries: set[int] = set()
    deadline = time.monotonic() + 60
    while len(tries) < 3:
        assert time.monotonic() < deadline
        with suppress(FileNotFoundError):
            tries.add(result.stat().st_mtime_ns)
        assert client.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "running")
    (tmp_path / "elsewhere").rename(log)
    assert wait(client, job)["ok"] == 4
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len([line for line in lines if line["event"] == "result"]) == 4


def test_a_disk_that_is_full_when_a_job_begins_does_not_end_it(
    serve: Callable[..., Client], photographs: dict[str, bytes], monkeypatch: Any
) -> None:
    """Before: "failed", with the advice to choose another folder. SQLite finds room in files that it has."""
    full, tried, write = threading.Event(), threading.Event(), journal.atomic_write

    def begin(path: Path, data: bytes, **options: Any) -> None:
        if full.is_set():
            tried.set()
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise DermsegError("cannot be written: No space left on device", file=path) from error
        write(path, data, **options)

    monkeypatch.setattr(journal, "atomic_write", begin)
    monkeypatch.setattr(job_runner, "_RETRY_S", 0.05)
    client = serve()
    full.set()
    job = client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"]
    assert tried.wait(60)
    time.sleep(0.2)
    assert client.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "running")
    full.clear()
    assert wait(client, job)["ok"] == 4


@pytest.mark.skipif(os.name == "nt", reason="folders are not synced there")
def test_a_result_is_on_the_disk_before_its_job_is_done(
    serve: Callable[..., Client], photographs: dict[str, bytes], tmp_path: Path, monkeypatch: Any
) -> None:
    """What it was made of is removed then."""
    synced, whole, fsync, end = set(), [], os.fsync, JobStore.end

    def note(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced.add((status.st_ino, status.st_size))

    def ended(store: JobStore, job: str, *arguments: Any, **options: Any) -> bool:
        folder = tmp_path / "state" / "jobs" / job
        found = [path.stat() for path in (folder, folder / "result.zip")]
        whole.extend((status.st_ino, status.st_size) in synced for status in found)
        return end(store, job, *arguments, **options)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(JobStore, "end", ended)
    client = serve()
    wait(client, client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"])
    assert whole == [True, True]


@pytest.mark.parametrize(
    ("left", "state"), [("4 at 0", "failed"), ("3 at 0", "done"), ("9 at 5", "done"), ("", "done")]
)
def test_a_job_that_ends_the_server_again_and_again_fails(
    serve: Callable[..., Client],
    photographs: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: Any,
    left: str,
    state: str,
) -> None:
    """Before, it was begun anew at each start, and ended the server for all who use it."""
    free, take = threading.Event(), JobStore.next
    monkeypatch.setattr(JobStore, "next", lambda store: take(store) if free.is_set() else None)
    client = serve()
    job = client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"]
    (tmp_path / "state" / "jobs" / job / "tries").write_text(left)  # as processes that were killed leave it
    free.set()
    other = client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"]
    assert wait(client, other)["ok"] == 4
    ended = client.get(f"/v1/jobs/{job}").json()
    assert ended["state"] == state, ended
    assert state == "done" or "more memory" in ended["problem"]


def test_a_job_whose_zip_was_lost_says_so(
    client: Client, photographs: dict[str, bytes], tmp_path: Path, monkeypatch: Any
) -> None:
    """As of a backup of the database alone: before, with the server's path and advice about globs."""
    free, take = threading.Event(), JobStore.next
    monkeypatch.setattr(JobStore, "next", lambda store: take(store) if free.is_set() else None)
    jobs = [client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"]]
    shutil.rmtree(tmp_path / "state" / "jobs" / jobs[0])
    free.set()
    jobs.append(client.post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"])
    wait(client, jobs[1])
    lost = client.get(f"/v1/jobs/{jobs[0]}").json()
    assert lost["state"] == "failed" and "no longer on the server" in lost["problem"]
    assert "input.zip" not in lost["problem"]


def test_a_server_back_with_another_model_records_its_own_masks(
    serve: Callable[..., Client],
    photographs: dict[str, bytes],
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    """The first model's masks were in the log already, and were never given out."""
    noted = threading.Event()

    def lost(*_: Any, **__: Any) -> bool:
        noted.set()
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(JobStore, "end", lost)
        broken.setattr(job_runner, "_RETRY_S", 60.0)
        job = serve().post("/v1/jobs", content=pack(photographs), headers=ZIP).json()["id"]
        assert noted.wait(60)
    newer = tmp_path / tiny_bundle.name
    shutil.copytree(tiny_bundle, newer)
    card = json.loads((newer / "card.json").read_text())
    card["version"], card["postprocessing"]["threshold"] = "2", 0.6
    (newer / "card.json").write_text(json.dumps(card))
    client = serve(models=(str(newer),))
    archive = zipfile.ZipFile(io.BytesIO(client.get(wait(client, job)["result"]).content))
    given = {hashlib.sha256(archive.read(n)).hexdigest() for n in archive.namelist() if "masks/" in n}
    lines = [json.loads(line) for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    results = [line for line in lines if line["event"] == "result"]
    assert len(results) == 8 and {line["output_sha256"] for line in results[4:]} == given
    assert len({line["config_sha256"] for line in results}) == 2


def test_a_body_in_chunks_does_not_fill_the_disk(
    serve: Callable[..., Client], tmp_path: Path, monkeypatch: Any
) -> None:
    client = serve()
    monkeypatch.setattr(routes_jobs, "_CHECK_BYTES", 100_000)
    usage, looks = shutil.disk_usage, []

    def filling(path: Path) -> Any:
        looks.append(path)
        return usage(path)._replace(free=10**9 if len(looks) < 3 else MIN_FREE_BYTES - 1)

    monkeypatch.setattr(shutil, "disk_usage", filling)

    def chunks() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(50_000)

    answer = client.post("/v1/jobs", content=chunks(), headers=ZIP)
    assert answer.status_code == 507 and len(looks) == 3
    assert names_in(tmp_path / "state" / "jobs") == []


def test_names_from_a_zip_stay_inside(client: Client, encoded: Make, tmp_path: Path) -> None:
    names = ["../../up.png", "/etc/absolute.png", "C:\\windows\\drive.png", "ok.png"]
    job = client.post("/v1/jobs", content=pack({name: encoded() for name in names}), headers=ZIP).json()["id"]
    done = wait(client, job)
    archive = zipfile.ZipFile(io.BytesIO(client.get(done["result"]).content))
    assert len([name for name in archive.namelist() if name.startswith("masks/")]) == 4
    assert not [name for name in archive.namelist() if ".." in name or name.startswith("/") or ":" in name]
    # not in its own folder, where the server still takes away what the job left
    others = [path for path in tmp_path.iterdir() if path.name != "state"]
    assert not [file for path in others for file in (path, *path.rglob("*")) if file.suffix == ".png"]


def test_deleting(
    serve: Callable[..., Client], encoded: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []
    run_batch = job_runner.run_batch

    def held(*arguments: Any, listener: Callable[..., None], **options: Any) -> Any:
        def listen(entry: Any, counts: Any) -> None:
            if entry is not None:
                done.append(entry)
                begun.set()
                go_on.wait(60)
            listener(entry, counts)

        return run_batch(*arguments, listener=listen, **options)

    monkeypatch.setattr(job_runner, "run_batch", held)
    client = serve(workers=1, max_jobs=2)
    many = pack({f"{i}.png": encoded(".png", i) for i in range(40)})
    first, second = (client.post("/v1/jobs", content=many, headers=ZIP).json()["id"] for _ in range(2))
    full = client.post("/v1/jobs", content=many, headers=ZIP)
    assert full.status_code == 503 and full.headers["retry-after"]
    assert client.get(f"/v1/jobs/{second}/result").status_code == 409
    assert client.delete(f"/v1/jobs/{second}").status_code == 204
    assert begun.wait(60) and client.get(f"/v1/jobs/{first}").json()["state"] == "running"
    assert client.delete(f"/v1/jobs/{first}").status_code == 204
    assert [client.get(f"/v1/jobs/{first}{path}").status_code for path in ("", "/result")] == [404, 404]
    assert client.get("/v1/jobs").json() == {"jobs": []}
    assert names_in(tmp_path / "state" / "jobs") == [first], "images are under way"
    go_on.set()
    nothing_is_left(tmp_path)
    assert len(done) < 20
    small = client.post("/v1/jobs", content=pack({"a.png": encoded()}), headers=ZIP).json()["id"]
    wait(client, small)
    assert client.delete(f"/v1/jobs/{small}").status_code == 204
    assert client.get(f"/v1/jobs/{small}").status_code == 404
    nothing_is_left(tmp_path)


def nothing_is_left(folder: Path) -> None:
    """Of any job; soon, for the thread that worked on it may have to come to its end."""
    deadline = time.monotonic() + 60
    while left := names_in(folder / "state" / "jobs"):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


# The program on a slow disk: what is sent to it amid its work does not come after its end.
SLOWLY = (
    "import time; from dermseg.apps.cli.main import run; from dermseg.inference import stages as s; "
    "write = s.atomic_write; s.atomic_write = lambda *a: (time.sleep(0.04), write(*a)); run()"
)


def start(tiny_bundle: Path, state: Path, port: int, *program: str) -> subprocess.Popen[bytes]:
    """The real command; returns when it is ready."""
    import httpx

    program = program or ("-m", "dermseg.apps.cli.main")
    command = [sys.executable, *program, "serve", "--state", str(state)]
    command += ["--port", str(port), "--model", str(tiny_bundle), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                return process
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the server did not become ready")


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_a_killed_server_goes_on_and_a_stopped_one_finishes(
    tiny_bundle: Path, tmp_path: Path, encoded: Make, unused_port: int
) -> None:
    import httpx

    state = tmp_path / "state"
    body = pack({f"{i}.png": encoded(".png", i, (600, 800)) for i in range(30)})
    server = start(tiny_bundle, state, unused_port, "-c", SLOWLY)
    with httpx.Client(base_url=f"http://127.0.0.1:{unused_port}", timeout=60) as client:
        job = client.post("/v1/jobs?tta=true", content=body, headers=ZIP).json()["id"]
        deadline = time.monotonic() + 120
        while client.get(f"/v1/jobs/{job}").json()["done"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    server.send_signal(signal.SIGKILL)
    server.wait()
    before = (state / "jobs" / job / "out" / "journal.jsonl").read_bytes().count(b"\n") - 1
    server = start(tiny_bundle, state, unused_port)
    with httpx.Client(base_url=f"http://127.0.0.1:{unused_port}", timeout=60) as client:
        done = wait(client, job)
        archive = zipfile.ZipFile(io.BytesIO(client.get(done["result"]).content))
        later = client.post("/v1/jobs?tta=true", content=body, headers=ZIP).json()["id"]
    assert before >= 3 and done["ok"] == 30
    rows = list(csv.DictReader(io.StringIO(archive.read("results.csv").decode())))
    assert len({row["file"] for row in rows}) == len(rows) == 30
    server.terminate()  # amid the second job
    assert server.wait(60) in (0, -signal.SIGTERM)
    server = start(tiny_bundle, state, unused_port)
    with httpx.Client(base_url=f"http://127.0.0.1:{unused_port}", timeout=60) as client:
        assert wait(client, later)["ok"] == 30
    server.send_signal(signal.SIGINT)  # Ctrl-C
    assert server.wait(60) == 0
    found = verify(state / "audit.jsonl")
    lines = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    counts = Counter(line["subject"] for line in lines if line["event"] == "result")
    assert found.ok and len(counts) == 60 and set(counts.values()) == {1}


def test_a_database_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    store = JobStore(path)
    job = store.add(Job("a" * 32, "ris", None, "queued", {"x": 1}, "b" * 64, 3))
    assert store.add(Job("c" * 32, "ris", None, "queued", {}, "b" * 64, 3)).id == "c" * 32
    begun = store.next()
    assert job.options == {"x": 1} and begun is not None and begun.attempts == 1
    assert store.recover() == 1 and store.counts() == {"queued": 2}
    assert not store.end(job.id, "done") and store.end(job.id, "failed", since=("queued",))
    assert store.forget(time.time() + 1) == [job.id]
    store._db.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(StoreError, match="version 99"):
        JobStore(path)


def test_a_database_of_the_version_before_gets_the_counts_of_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = JobStore(path)
    store.add(Job("a" * 32, "me", None, "queued", {}, "0" * 64, 3))
    store.close()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "ALTER TABLE jobs DROP COLUMN review; ALTER TABLE jobs DROP COLUMN reject; PRAGMA user_version=1;"
        )
    store = JobStore(path)
    job = store.next()
    assert job is not None and (job.review, job.reject) == (0, 0)
    store.progress(job.id, {"images": 3, "ok": 2, "no_lesion": 0, "failed": 1, "review": 1, "reject": 0})
    store.close()
    again = JobStore(path)
    found = again.get(job.id)
    assert found is not None and (found.ok, found.failed, found.review, found.reject) == (2, 1, 1, 0)
    again.close()
