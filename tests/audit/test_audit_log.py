"""The audit log: what was written stays provable, whatever is done to the file."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dermseg.apps.cli.main import main
from dermseg.audit import AuditError, AuditLog, Entry, Receipt, verify
from dermseg.audit.log import head_path
from dermseg.audit.record import decode_line
from dermseg.errors import UsageError

KEY = b"0123456789abcdef"


def result(number: int) -> Entry:
    return Entry("result", "ris", f"request/{number}", "a" * 64, "b" * 64, "c" * 64, "d" * 64, "ok")


def make(path: Path, records: int = 6, key: bytes | None = None) -> AuditLog:
    log = AuditLog(path, key)
    for number in range(records):
        log.append([result(number)])
    return log


def test_a_log_that_nobody_touched_verifies(tmp_path: Path) -> None:
    path = tmp_path / "state" / "audit.jsonl"
    log = make(path)
    receipts = log.append([result(10), result(11)])
    found = verify(path)
    assert found.ok and found.records == 9 and found.last == receipts[-1] == log.last
    record = log.get(receipts[0].seq)
    assert record is not None and record["subject"] == "request/10" and record["hash"] == receipts[0].hash
    assert log.find("request/1") == {"request/1", "request/10", "request/11"}
    assert log.find("request/1", hash=receipts[0].hash) == {"request/10"}
    if os.name != "nt":
        assert path.stat().st_mode & 0o077 == 0
    log.close()
    again = AuditLog(path)  # and it goes on where it ended
    again.append([result(12)])
    assert verify(path, expect=receipts[0]).records == 10
    assert not verify(path, expect=Receipt(receipts[0].seq, "0" * 64)).ok


@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@pytest.mark.parametrize("key", [None, KEY])
def test_any_change_is_found(tmp_path: Path, key: bytes | None, data: st.DataObject) -> None:
    path = tmp_path / "audit.jsonl"
    if not path.exists():
        make(path, key=key).close()
        assert verify(path, key).ok
    original, head = path.read_bytes(), head_path(path).read_bytes()
    lines = original.splitlines(keepends=True)
    what = data.draw(st.sampled_from(["byte", "insert", "cut", "drop", "swap", "repeat", "head"]))
    at = data.draw(st.integers(0, len(original) - 1))
    line = data.draw(st.integers(0, len(lines) - 1))
    changed = original
    if what == "byte":
        changed = original[:at] + bytes([original[at] ^ data.draw(st.integers(1, 255))]) + original[at + 1 :]
    elif what == "insert":
        changed = original[:at] + data.draw(st.binary(min_size=1, max_size=4)) + original[at:]
    elif what == "cut":
        changed = original[:at]
    elif what == "drop":
        changed = b"".join(lines[:line] + lines[line + 1 :])
    elif what == "swap":
        other = data.draw(st.integers(0, len(lines) - 1).filter(lambda other: other != line))
        lines[line], lines[other] = lines[other], lines[line]
        changed = b"".join(lines)
    elif what == "repeat":
        changed = b"".join([*lines[: line + 1], *lines[line:]])
    else:
        head_path(path).unlink()
    try:
        path.write_bytes(changed)
        assert not verify(path, key).ok
    finally:
        path.write_bytes(original)
        head_path(path).write_bytes(head)


def test_a_change_of_any_byte_of_a_record_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make(path, 1).close()
    line = path.read_bytes().splitlines(keepends=True)[1]
    decode_line(line, None)
    for at in range(len(line)):
        with pytest.raises(ValueError, match="is not"):
            decode_line(line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :], None)


def test_without_the_key_no_new_chain_can_be_made(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make(path, key=KEY).close()
    for wrong in (None, b"fedcba9876543210"):
        assert not verify(path, wrong).ok
        with pytest.raises(AuditError, match=r"record 1.*give the key it was begun with"):
            AuditLog(path, wrong)
    # Whoever forgot the key is not told of forgery alone.
    assert "begun with a key, and none was given" in str(verify(path).problem)
    # A forger without the key begins a chain of his own: the key's owner sees it at the first record.
    forged = tmp_path / "forged.jsonl"
    make(forged).close()
    found = verify(forged, KEY)
    assert "begun without a key" in str(found.problem)
    with pytest.raises(AuditError, match=r"without a key.*move LOG and LOG\.head"):
        AuditLog(forged, KEY)
    assert not found.ok and found.records == 0


def test_a_cut_or_changed_end_is_refused_when_the_log_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make(path).close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(AuditError, match="2 records are missing"):
        AuditLog(path)
    path.write_bytes(b"".join(lines).replace(b'"verdict":"ok","override":null,"prev"', b'"verdict":"no"', 7))
    with pytest.raises(AuditError):
        AuditLog(path)
    path.write_bytes(b"".join(lines))
    head_path(path).unlink()
    with pytest.raises(AuditError, match="head of the log is missing"):
        AuditLog(path)


def test_a_torn_line_is_cut_off_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = make(path, 2)
    with path.open("ab") as file:
        file.write(b'{"seq":4,"time":"20","subject":"request/4')
    assert log.get(4) is None and log.find("request/") == {"request/0", "request/1"}
    log.close()
    assert not verify(path).ok
    AuditLog(path).close()
    found = verify(path)
    assert found.ok and found.records == 4
    assert json.loads(path.read_text().splitlines()[-1])["event"] == "repaired"


@pytest.mark.parametrize("left", [b'{"seq":1,"time":"20', bytes(4096)])
def test_a_log_that_was_torn_in_its_first_record_begins_anew(tmp_path: Path, left: bytes) -> None:
    """Before: it was said to be begun with another key, and no server started any more."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(left)
    for number in range(2):
        log = AuditLog(path, KEY)
        log.append([result(number)])
        log.close()
    found = verify(path, KEY)
    assert found.ok, found.problem
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events == ["opened", "repaired", "result", "result"]


def test_a_long_row_of_zeros_is_cut_off(tmp_path: Path) -> None:
    """A file system that knew the new length, but not yet the content, when the power failed."""
    path = tmp_path / "audit.jsonl"
    make(path, 2).close()
    with path.open("ab") as file:
        file.write(bytes(300_000))
    log = AuditLog(path)
    log.append([result(2)])
    assert verify(path).ok and verify(path).records == 5


def test_a_full_disk_leaves_nothing_of_what_was_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their results are not given out, so there must be no record of them."""
    path = tmp_path / "audit.jsonl"
    log = make(path, 2)
    write, left = os.write, [700, 0]

    def full(descriptor: int, data: memoryview) -> int:
        room = left.pop(0)
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:room])

    with monkeypatch.context() as patch, pytest.raises(AuditError, match="cannot be written"):
        patch.setattr(os, "write", full)
        log.append([result(number) for number in range(2, 9)])
    assert verify(path).ok and verify(path).records == 3
    log.append([result(2)])
    assert verify(path).ok and log.last.seq == 4


@pytest.mark.skipif(os.name == "nt", reason="Windows does not let go of an open file")
@pytest.mark.parametrize("name", ["audit.jsonl", "audit.jsonl.head"])
def test_a_log_that_was_moved_away_is_not_written_to(tmp_path: Path, name: str) -> None:
    """As by logrotate: the open file would take records that nobody finds again."""
    path = tmp_path / "audit.jsonl"
    log = make(path)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(AuditError, match="moved, removed or replaced"):
            log.append([result(9)])
        for read in (lambda: log.find("request/"), lambda: log.get(3)):
            with pytest.raises(AuditError, match="moved, removed or replaced"):
                read()
        (tmp_path / name).write_bytes((tmp_path / "elsewhere").read_bytes())  # a copy is another file
    (tmp_path / "elsewhere").rename(tmp_path / name)
    log.append([result(9)])
    assert verify(path).ok


def test_a_changed_record_is_an_audit_error_wherever_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    make(path).close()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"verdict":"ok"', b'"verdict":"no"')
    path.write_bytes(b"".join(lines))
    log = AuditLog(path)  # which looks at both ends only
    for read in (lambda: log.find("request/"), lambda: log.get(3)):
        with pytest.raises(AuditError, match="not that of its content"):
            read()


def test_a_new_head_is_on_the_disk_before_the_log_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_ino), fsync(file)))
    path = tmp_path / "audit.jsonl"
    AuditLog(path).close()
    assert {path.stat().st_ino, head_path(path).stat().st_ino} <= set(synced)


@pytest.mark.skipif(os.name == "nt", reason="fcntl is POSIX")
def test_a_disk_without_locks_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(AuditError, match="No locks available") as error:
        AuditLog(tmp_path / "audit.jsonl")
    assert "file locks" in str(error.value.hint)


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock (util-linux)")
def test_a_log_in_use_is_copied_as_the_page_says(tmp_path: Path) -> None:
    """Copied one after the other, a head that is newer than its log tells of records that are missing."""
    page = Path(__file__).parents[2].joinpath("docs", "api.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ *(flock .*)$", page, re.MULTILINE)
    log, end = make(tmp_path / "state" / "audit.jsonl"), threading.Event()

    def write() -> None:
        while not end.is_set():
            log.append([result(0)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(20):
            (tmp_path / "backup").mkdir()
            subprocess.run(command.split(), check=True, cwd=tmp_path)
            (tmp_path / "backup").rename(tmp_path / f"backup{number}")
    finally:
        end.set()
        writer.join()
    for number in range(20):
        found = verify(tmp_path / f"backup{number}" / "audit.jsonl")
        assert found.ok, found.problem


@pytest.mark.skipif(os.name == "nt", reason="fcntl is POSIX")
@pytest.mark.parametrize("without_locks", [False, True])
def test_a_copy_on_a_network_drive_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_locks: bool
) -> None:
    """Before, a traceback: NFS gives the whole lock of a file to those alone who may write it."""
    import fcntl

    path = tmp_path / "audit.jsonl"
    make(path).close()
    flock = fcntl.flock

    def refuse(descriptor: int, operation: int) -> None:
        reads = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if without_locks or (operation & fcntl.LOCK_EX and reads):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert verify(path).ok


def test_threads_and_processes_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    logs = [AuditLog(path), AuditLog(path)]  # as two processes would: each with its own files

    def write(log: AuditLog, start: int) -> None:
        for number in range(start, start + 15):
            log.append([result(number), result(1000 + number)])

    threads = [threading.Thread(target=write, args=(logs[i % 2], 100 * i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = verify(path)
    assert found.ok and found.records == 1 + 4 * 15 * 2
    assert len(logs[0].find("request/")) == 120


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_sigkill_loses_no_record_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    program = (
        "import sys; from pathlib import Path; from dermseg.audit import AuditLog, Entry\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "while True: print(log.append([Entry('result', 'ris', 'r')])[0].seq, flush=True)\n"
    )
    done = 0
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        done = int(process.stdout.readline())
        time.sleep(0.03 * attempt)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        done = max([done, *[int(line) for line in rest[:-1]]])
    AuditLog(path).close()
    found = verify(path)
    assert found.ok and found.records >= done


@pytest.mark.parametrize(
    "wrong", [{"event": "seen"}, {"actor": "Miller, Anna"}, {"verdict": "x" * 200}, {"input_sha256": "ab"}]
)
def test_only_codes_and_hashes_get_in(wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="audit"):
        Entry(**{"event": "result", "actor": "a", "subject": "b", **wrong})  # type: ignore[arg-type]


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, key = tmp_path / "audit.jsonl", tmp_path / "key"
    key.write_bytes(KEY)
    last = make(path, 2, KEY).last

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["audit", *arguments])
        return int(stop.value.code or 0), capsys.readouterr().out

    expect = f"{last.seq}:{last.hash}"
    code, out = run("verify", str(path), "--key-file", str(key), "--expect", expect, "--json")
    assert code == 0 and json.loads(out)["records"] == 3
    assert run("verify", str(path))[0] == 1
    (tmp_path / "short").write_bytes(KEY[:-1] + b"\n")
    assert run("verify", str(path), "--key-file", str(tmp_path / "short"))[0] == 2
    noted = f" {expect.upper()} "  # as it was typed from paper
    assert run("verify", str(path), "--key-file", str(key), "--expect", noted)[0] == 0
    for wrong in ("nonsense", f"{last.seq}:{'z' * 64}", f"{last.seq}:{last.hash[:-1]}"):
        assert run("verify", str(path), "--expect", wrong)[0] == 2
    assert run("verify", str(tmp_path / "missing"))[0] == 2
    (tmp_path / "image.png").write_bytes(b"anything")
    assert run("show", str(path), "--image", str(tmp_path / "image.png"))[1] == ""
    assert len(run("show", str(path))[1].splitlines()) == 3
