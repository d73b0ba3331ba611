"""The queue keeps what it accepted, once, and the loop around it works without an archive program."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import shutil
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from dermseg.apps.cli.main import main
from dermseg.audit import verify
from dermseg.dicom import receive, service
from dermseg.dicom.config import Dimse, PacsConfig, Retry, Send, Tls, load_config
from dermseg.dicom.queue import Queue, QueueError
from dermseg.dicom.receive import IMAGE_CLASSES
from dermseg.dicom.send import SendError, send
from dermseg.dicom.work import Worker
from dermseg.errors import ConfigError, UsageError
from dermseg.inference.predictor import load_model
from dermseg.quality.verdict import Finding, make_verdict

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "q")
    yield queue
    queue.close()


def test_an_image_is_accepted_once_per_way_of_working(queue: Queue) -> None:
    assert queue.add("1.2.3", "model a", "CAM", b"file")
    assert not queue.add("1.2.3", "model a", "CAM", b"other")
    assert queue.received_path("1.2.3").read_bytes() == b"file"
    assert queue.add("1.2.3", "model b", "CAM", b"file")
    assert queue.counts()["received"] == 2
    queue.adopt("model b")  # the older one is what the newer one does anyway
    assert (queue.counts()["received"], queue.counts()["ignored"]) == (1, 1)
    for wrong in ("../../etc/passwd", "", "1.2/3", "1" * 65):
        with pytest.raises(QueueError, match="no UID"):
            queue.add(wrong, "model a", "CAM", b"x")


def test_why_an_image_is_refused_is_in_the_log(
    queue: Queue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, of a damaged one only "ImageError"."""
    caplog.set_level(logging.INFO, "dermseg.dicom")
    config = PacsConfig.model_validate({"folder": tmp_path, "send": {"web": {"url": "http://127.0.0.1:1"}}})
    worker: Any = SimpleNamespace(work_key="k")
    event = SimpleNamespace(
        assoc=SimpleNamespace(requestor=SimpleNamespace(ae_title="CAMERA")),
        request=SimpleNamespace(AffectedSOPInstanceUID="1.2.3"),
        encoded_dataset=lambda: bytes(128) + b"DICM",
    )
    assert receive.Receiver(queue, worker, config)._store(event) == 0xC000
    assert json.loads(caplog.records[-1].message)["reason"] == "the DICOM file ends early or holds nothing"


def test_what_a_full_disk_says_does_not_name_the_image(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the log, which has nothing of a patient."""

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("dermseg.dicom.queue.write_synced", full)
    with pytest.raises(QueueError) as raised:
        queue.add("1.2.826.0.1", "model a", "CAM", b"file")
    assert raised.value.message == f"the image cannot be kept: {os.strerror(errno.ENOSPC)}"


def test_states_retries_and_dead_letters(
    queue: Queue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.add("1.1", "k", "CAM", b"a")
    queue.add("1.2", "k", "CAM", b"b")
    first = queue.take("received")
    assert first is not None and first.image_uid == "1.1"
    queue.postpone(first, 60, "away")
    second = queue.take("received")
    assert second is not None and second.image_uid == "1.2"
    queue.move(second, "made")
    made = queue.take("made")
    assert made is not None
    queue.move(made, "dead", "refused")
    assert queue.listed("dead")[0].reason == "refused" and queue.take("received") is None
    (tmp_path / "pacs.yaml").write_text("folder: q\nsend: {web: {url: 'http://x'}}")
    with pytest.raises(SystemExit):
        main(["dicom", "queue", str(tmp_path / "pacs.yaml"), "--json"])
    (letter,) = json.loads(capsys.readouterr().out)["dead_letters"]
    assert letter["reason"] == "refused" and Path(letter["file"]).read_bytes() == b"b"
    assert queue.revive() == 1
    revived = queue.take("made")  # back to where it failed
    assert revived is not None and revived.attempts == 0
    queue.finish(revived, keep_received=False)
    assert not queue.received_path("1.2").exists() and queue.received_path("1.1").exists()
    assert not queue.add("1.2", "k", "CAM", b"b")  # done is done
    queue.forget(time.time() + 1)
    assert queue.add("1.2", "k", "CAM", b"b")
    again = queue.take("received")
    assert again is not None and again.id > revived.id  # numbers do not begin again


def test_a_dead_letter_is_given_up(queue: Queue, tmp_path: Path) -> None:
    """Before, there was no way: its image stayed for good, and so did exit code 1."""
    (tmp_path / "pacs.yaml").write_text("folder: q\nsend: {web: {url: 'http://x'}}")
    for uid in ("1.1", "1.2"):
        queue.add(uid, "k", "CAM", b"damaged")
    for job in queue.listed("received"):
        queue.made_path(job, "dicom-seg").write_bytes(b"made")
        queue.move(job, "dead", "refused")
    ends = []
    for number in ("1", "2", "2"):
        with pytest.raises(SystemExit) as end:
            main(["dicom", "queue", str(tmp_path / "pacs.yaml"), "--drop", number])
        assert not queue.received_path(f"1.{number}").exists()
        ends.append((end.value.code, len(list((tmp_path / "q" / "made").iterdir()))))
    assert ends == [(1, 1), (0, 0), (2, 0)] and queue.counts()["ignored"] == 2
    assert not queue.add("1.1", "k", "CAM", b"damaged")  # a watched archive still lists it


def test_a_clock_that_was_set_back_keeps_nobody_waiting(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.add("1.1", "k", "CAM", b"a")
    job = queue.take("received")
    assert job is not None
    queue.postpone(job, 60, "away")
    assert queue.take("received") is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400 * 365)
    assert queue.take("received") == replace(job, attempts=1, reason="away")


def test_a_dead_letter_that_is_sent_again_is_tried_again(queue: Queue) -> None:
    queue.add("1.1", "k", "CAM", b"damaged")
    job = queue.take("received")
    assert job is not None
    queue.move(job, "dead", "damaged")
    assert queue.add("1.1", "k", "CAM", b"whole")
    again = queue.take("received")
    assert again is not None and queue.received_path("1.1").read_bytes() == b"whole"


def test_one_owner_and_leftovers(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    queue.add("1.1", "k", "CAM", b"a")
    with pytest.raises(UsageError, match="another dermseg"):
        Queue(tmp_path)
    looking = Queue(tmp_path, own=False)
    assert looking.counts()["received"] == 1
    looking.close()
    for name in ("received/1.9.dcm", "received/1.1.dcm.7.tmp", "made/77-dicom-seg.dcm", "made/x"):
        (tmp_path / name).write_bytes(b"left over")
    queue.tidy(keep_received=False)
    assert [path.name for path in (tmp_path / "received").iterdir()] == ["1.1.dcm"]
    assert not list((tmp_path / "made").iterdir())
    queue.close()
    Queue(tmp_path).close()
    with pytest.raises(UsageError, match="holds no queue") as refused:
        Queue(tmp_path / "none", own=False)
    assert "dicom listen" in str(refused.value.hint)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_a_folder_that_is_there_keeps_its_mode_and_what_is_put_there_is_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    queue = Queue(tmp_path)
    queue.add("1.2.3", "model", "CAM", b"file")
    queue.close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o775
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("received", "made")}
    assert modes == {"received": 0o700, "made": 0o700}
    assert stat.S_IMODE((tmp_path / "queue.sqlite").stat().st_mode) == 0o600
    Queue(tmp_path / "new").close()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_delays_double_up_to_a_limit() -> None:
    retry = Retry(first_s=5, longest_s=60)
    assert [retry.delay_s(n) for n in (1, 2, 3, 4, 5, 1000)] == [5, 10, 20, 40, 60, 60]
    assert sum(Retry().delay_s(n) for n in range(1, Retry().attempts)) > 24 * 3600


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "folder: q\nsend: {web: {url: 'http://x/'}}\nlisten: {prot: 1}",
            "did you mean 'listen.port'|'port'",
        ),
        ("folder: q\nsend: {}", "exactly one"),
        ("folder: q\nsend: {dimse: {ae_title: 'SIXTEEN LETTERS+', host: h, port: 99999}}", "65535"),
        ("folder: q\nsend: {web: {url: ftp://x}}", "no address"),
        ("folder: q\nsend: {web: {url: 'http://me:secret@x'}}", "no user or password"),
        ("folder: q\nresults: [masks]\nsend: {web: {url: 'http://x'}}", r"'dicom-seg', .* \(got 'masks'\)$"),
        ("folder: q\naudit_key: k\nsend: {web: {url: 'http://x'}}", "no audit log"),
        ("folder: [", "is not YAML"),
    ],
)
def test_configurations_that_are_wrong_say_so(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "pacs.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load_config(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pacs.yaml"
    path.write_text(
        "folder: q\nresults: [dicom-sr]\nsend: {web: {url: 'http://x', user: u, password_file: p}}"
    )
    config = load_config(path)
    assert config.folder == tmp_path / "q" and config.kinds == ("dicom-seg", "dicom-sr")
    assert config.send.web is not None and config.send.web.password_file == tmp_path / "p"
    (tmp_path / "default").mkdir()
    (tmp_path / "mine").mkdir()
    assert config.model == load_config(path).model == "default"  # the bundle of that name, not the folder
    path.write_text("folder: q\nmodel: mine\nsend: {web: {url: 'http://x'}}")
    assert load_config(path).model == str(tmp_path / "mine")


class Archive:
    """A C-STORE service that keeps what it is sent, refusing the first few."""

    def __init__(self, refuse: int = 0, tls: Tls | None = None) -> None:
        self.stored: list[Dataset] = []
        self._refuse = refuse
        entity = AE(ae_title="ARCHIVE")
        for uid in ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.33"):
            entity.add_supported_context(uid)
        self.port = free_port()
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store)]
        self.server = entity.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=handlers,
            ssl_context=None if tls is None else tls.context(server=True),
        )

    def _store(self, event: Any) -> int:
        if self._refuse:
            self._refuse -= 1
            return 0xA700
        self.stored.append(event.dataset)
        return 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def certificates(tmp_path: Path) -> Tls:
    """An authority and one certificate for this machine, made by OpenSSL."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    run = partial(subprocess.run, check=True, capture_output=True, cwd=tmp_path)
    (tmp_path / "ext").write_text("subjectAltName=IP:127.0.0.1")
    new = "openssl req -newkey rsa:2048 -nodes -subj /CN=test"
    run(f"{new} -x509 -keyout ca.key -out ca.pem -days 2".split())
    run(f"{new} -keyout own.key -out own.csr".split())
    sign = "openssl x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext"
    run(f"{sign} -out own.pem".split())
    return Tls(certificate=tmp_path / "own.pem", key=tmp_path / "own.key", authority=tmp_path / "ca.pem")


def test_certificates_that_do_not_fit_are_named(certificates: Tls, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("none")
    locked = tmp_path / "locked.key"  # OpenSSL would ask for its passphrase at the terminal
    lock = ["openssl", "rsa", "-aes256", "-passout", "pass:secret"]
    subprocess.run([*lock, "-in", certificates.key, "-out", locked], check=True, capture_output=True)
    for name, path, reason in (
        ("authority", tmp_path / "gone", "authority: No such file"),
        ("authority", words, "authority: holds no certificates"),
        ("key", tmp_path / "gone", "key: No such file"),
        ("key", locked, "has no passphrase"),
        ("key", tmp_path / "ca.key", "the certificate's own"),
    ):
        for server in (True, False):
            with pytest.raises(ConfigError, match=reason) as error:
                certificates.model_copy(update={name: path}).context(server=server)
            assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "send",
    [
        {"web": {"url": "http://x", "user": "u", "password_file": "gone"}},
        {"web": {"url": "http://x", "token_env": "DERMSEG_NO_SUCH_TOKEN"}},
        {"dimse": {"ae_title": "A", "host": "h", "tls": dict.fromkeys(Tls.model_fields, "gone")}},
    ],
)
def test_a_secret_that_is_missing_is_said_at_the_start(tmp_path: Path, send: dict[str, Any]) -> None:
    """Before, images were accepted, and the sending of each was tried for 30 hours."""
    path = tmp_path / "pacs.yaml"
    path.write_text(json.dumps({"folder": "q", "listen": {"port": free_port()}, "send": send}))
    stop = threading.Event()
    stop.set()
    with pytest.raises(ConfigError, match=r"No such file|SUCH_TOKEN is empty"):
        service.listen(load_config(path), stop)
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("secure", [False, True])
def test_received_segmented_and_sent_with_retries(
    files: ModuleType, tiny_bundle: Path, tmp_path: Path, certificates: Tls, secure: bool
) -> None:
    tls = certificates if secure else None
    archive = Archive(refuse=2, tls=tls)
    target = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port, "tls": tls}
    config = PacsConfig.model_validate(
        {
            "folder": tmp_path / "q",
            "model": str(tiny_bundle),
            "listen": {"port": free_port(), "callers": ["CAMERA"], "tls": tls},
            "send": {"dimse": target},
            "retry": {"first_s": 0.05, "longest_s": 0.05},
        }
    )
    stop = threading.Event()
    thread = threading.Thread(target=service.listen, args=(config, stop))
    thread.start()
    try:
        wait_for(lambda: reachable(config.listen.port))
        ds = files.photograph(encoding="jpeg")
        own = files.photograph(Manufacturer="dermseg")
        assert store(config, ds) == store(config, ds) == store(config, own) == 0
        assert store(config, ds, caller="STRANGER") is None
        wait_for(lambda: len(archive.stored) >= 2)
        wait_for(lambda: not list((tmp_path / "q" / "made").iterdir()))
    finally:
        stop.set()
        thread.join()
        archive.server.shutdown()
    assert [made.Modality for made in archive.stored] == ["SEG", "SR"]
    assert {made.StudyInstanceUID for made in archive.stored} == {ds.StudyInstanceUID}
    queue = Queue(tmp_path / "q", own=False)
    assert queue.counts() == {"received": 0, "made": 0, "sent": 1, "dead": 0, "ignored": 1}
    queue.close()


@pytest.mark.parametrize("secure", [False, True])
def test_connections_that_say_nothing_keep_nobody_waiting(
    files: ModuleType,
    tiny_bundle: Path,
    tmp_path: Path,
    certificates: Tls,
    secure: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A port scan, a health check, a camera that was switched off amid the handshake, or amid an image.

    The last one, before, held one of the associations for ever, and the service could not be stopped.
    """
    monkeypatch.setattr(receive, "_SILENCE_S", 0.5)
    monkeypatch.setattr(receive, "_GREETING_S", 90.0)  # far more than a busy machine needs
    archive = Archive()
    config = PacsConfig.model_validate(
        {
            "folder": tmp_path / "q",
            "model": str(tiny_bundle),
            "listen": {"port": free_port(), "tls": certificates if secure else None},
            "send": {"dimse": {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port}},
        }
    )
    stop = threading.Event()
    thread = threading.Thread(target=service.listen, args=(config, stop))
    thread.start()
    place = ("127.0.0.1", config.listen.port)
    silent: list[socket.socket] = []
    try:
        wait_for(lambda: reachable(config.listen.port))
        for _ in range(40):  # more than there may be associations
            socket.create_connection(place).close()
            silent.append(socket.create_connection(place))
        begin = time.monotonic()
        assert store(config, files.photograph()) == 0
        assert time.monotonic() - begin < 60
        torn = associate(config, Verification).dul.socket.socket
        torn.sendall(b"\x04\0\0\0\x40\0amid an image")
        time.sleep(0.1)
    finally:
        for connection in silent:
            connection.close()
        stop.set()
        thread.join(60)
        archive.server.shutdown()
    assert not thread.is_alive()
    torn.close()


@pytest.mark.parametrize(("left", "state"), [("4 1", "dead"), ("3 1", "made"), ("9 2", "made")])
def test_an_image_that_ends_the_service_again_and_again_is_a_dead_letter(
    files: ModuleType, tiny_bundle: Path, tmp_path: Path, left: str, state: Any
) -> None:
    """Before, it was begun anew at each start, and no other image was worked on."""
    config = PacsConfig.model_validate(
        {"folder": tmp_path / "q", "send": {"web": {"url": "http://127.0.0.1:1"}}}
    )
    queue = Queue(config.folder)
    worker = Worker(queue, config, load_model(tiny_bundle))
    queue.add("1.2.3", worker.work_key, "CAM", files.to_bytes(files.photograph(SOPInstanceUID="1.2.3")))
    (tmp_path / "q" / "make.tries").write_text(left)  # as processes that were killed leave it
    (job,) = queue.listed("received")
    worker._try(job, worker.make)
    assert [found.id for found in queue.listed(state)] == [job.id]
    assert not (tmp_path / "q" / "make.tries").exists()
    worker.stop()
    queue.close()


def test_a_kind_of_result_that_is_added_is_made_of_an_image_that_is_sent_again(
    files: ModuleType, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Before, it was a duplicate for 30 days: the engineer who added reports saw none."""
    model, queue = load_model(tiny_bundle), Queue(tmp_path / "q")
    data = files.to_bytes(files.photograph(SOPInstanceUID="1.2.3"))
    made: list[dict[str, str]] = []
    for results in (["dicom-seg"], ["dicom-seg", "dicom-sr"]):
        web = {"web": {"url": "http://127.0.0.1:1"}}
        config = PacsConfig.model_validate({"folder": tmp_path / "q", "results": results, "send": web})
        worker = Worker(queue, config, model)
        assert queue.add("1.2.3", worker.work_key, "CAM", data)
        (job,) = queue.listed("received")
        worker.make(job)
        paths = {kind: queue.made_path(job, kind) for kind in config.kinds}
        made.append({kind: str(dcmread(path).SOPInstanceUID) for kind, path in paths.items()})
        queue.finish(job, keep_received=False)
        worker.stop()
    assert made[1]["dicom-seg"] == made[0]["dicom-seg"] and len(made[1]) == 2
    queue.close()


@pytest.mark.parametrize(("days", "known"), [(7, False), (60, True), (None, True)])
def test_what_a_watched_archive_still_lists_is_not_forgotten(
    tiny_bundle: Path, tmp_path: Path, days: int | None, known: bool
) -> None:
    """Before, every image of ``days: null`` was fetched, segmented and sent once more every 30 days."""
    web = {"url": "http://127.0.0.1:1"}
    values = {"folder": tmp_path / "q", "send": {"web": web}, "watch": {"web": web, "days": days}}
    config = PacsConfig.model_validate(values)
    queue = Queue(config.folder)
    worker = Worker(queue, config, load_model(tiny_bundle))
    queue.add("1.2.3", worker.work_key, "web", b"", state="ignored")
    queue._rows("UPDATE jobs SET changed = changed - 40 * 86400")
    worker.start()
    deadline = time.monotonic() + (1 if known else 20)
    while queue.knows("1.2.3", worker.work_key) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert queue.knows("1.2.3", worker.work_key) == known
    worker.stop()
    queue.close()


def test_every_job_has_its_audit_record_once(
    files: ModuleType,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a log that outlives the queue, whose job numbers then begin again."""
    log = tmp_path / "audit" / "audit.jsonl"
    model = load_model(tiny_bundle)
    verdict = make_verdict([Finding("blur", "reject", 9.0, 5.0)])
    monkeypatch.setattr(model, "judge", lambda result, view, features: replace(result, verdict=verdict))
    values = {"send": {"web": {"url": "http://127.0.0.1:1"}}, "audit": log}
    for name in ("first", "first", "second"):  # the first folder is opened twice, as after a restart
        config = PacsConfig.model_validate({"folder": tmp_path / name, **values})
        queue = Queue(config.folder)
        worker = Worker(queue, config, model)
        ds = files.photograph(SOPInstanceUID="1.2.3")
        queue.add("1.2.3", worker.work_key, "CAM", files.to_bytes(ds))
        (job,) = queue.listed("received") + queue.listed("made")
        worker.make(job)
        worker.make(job)  # as after a crash in between
        worker.stop()
        queue.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    records = [line for line in lines if line["event"] == "result"]
    assert verify(log).ok and [record["verdict"] for record in records] == ["reject"] * 2
    first, second = (record["subject"].split("/") for record in records)
    assert first[:2] == second[:2] == ["dicom", "1"] and first[2] != second[2]
    # They are found by the image, whatever else an archive changed in its file; and no other image's.
    for uid, found in (("1.2.3", records), ("1.2.3.4", [])):
        path = tmp_path / "of the archive.dcm"
        path.write_bytes(files.to_bytes(files.photograph(SOPInstanceUID=uid, encoding="rle")))
        with pytest.raises(SystemExit):
            main(["audit", "show", str(log), "--image", str(path)])
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == found


def test_a_header_that_no_result_can_name_is_a_dead_letter_at_once_and_a_full_disk_is_not(
    files: ModuleType,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dermseg.dicom")
    config = PacsConfig.model_validate(
        {"folder": tmp_path / "q", "send": {"web": {"url": "http://127.0.0.1:1"}}}
    )
    queue = Queue(config.folder)
    worker = Worker(queue, config, load_model(tiny_bundle))

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:  # a full disk is tried again, and says what it is
        patch.setattr("dermseg.dicom.work.write_synced", full)
        queue.add("1.2.4", worker.work_key, "CAM", files.to_bytes(files.photograph(SOPInstanceUID="1.2.4")))
        (job,) = queue.listed("received")
        worker._try(job, worker.make)
        (job,) = queue.listed("received")
        assert (job.attempts, job.reason) == (1, os.strerror(errno.ENOSPC))
        queue.move(job, "sent")
    ds = files.photograph(SOPInstanceUID="1.2.3")
    ds.SOPClassUID = "1.2.3.4"  # nobody's; highdicom looks it up in a table
    queue.add("1.2.3", worker.work_key, "CAM", files.to_bytes(ds))
    (job,) = queue.listed("received")
    worker._try(job, worker.make)
    (dead,) = queue.listed("dead")
    assert dead.reason is not None and "header" in dead.reason
    data = files.to_bytes(files.photograph(SOPInstanceUID="1.2.5", NumberOfFrames=99999999))
    queue.add("1.2.5", worker.work_key, "CAM", data.replace(b"99999999", b"Doe^Jane"))
    (job,) = queue.listed("received")
    worker._try(job, worker.make)
    said = f"{queue.listed('dead')} {caplog.text}"
    assert "the DICOM header is damaged" in said and "Doe" not in said
    worker.stop()
    queue.close()


def test_who_is_refused_is_in_the_log(
    tiny_bundle: Path, tmp_path: Path, certificates: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    """Titles, classes and certificates are what a first connection fails of, and one a year later."""
    caplog.set_level(logging.INFO, "dermseg.dicom")
    for tls in (None, certificates):
        config = PacsConfig.model_validate(
            {
                "folder": tmp_path / "q",
                "model": str(tiny_bundle),
                "listen": {"port": free_port(), "callers": ["CAMERA"], "tls": tls},
                "send": {"dimse": {"ae_title": "ARCHIVE", "host": "127.0.0.1"}},
            }
        )
        stop = threading.Event()
        thread = threading.Thread(target=service.listen, args=(config, stop))
        thread.start()
        try:
            port = config.listen.port
            wait_for(lambda port=port: reachable(port))
            with socket.create_connection(("127.0.0.1", port)) as gone:  # reset: nothing was refused to it
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            entity = AE(ae_title="CAMERA")
            entity.add_requested_context("1.2.840.10008.1.1")
            entity.add_requested_context("1.2.840.10008.5.1.4.1.1.66.4")
            entity.add_requested_context("1.2.3.4", "1.2.5")
            if tls is None:
                entity.associate("127.0.0.1", port, ae_title="OTHER")
                entity.associate("127.0.0.1", port, ae_title="DERMSEG").release()
                entity.ae_title = "STRANGER"
            refused = entity.associate("127.0.0.1", port, ae_title="DERMSEG")
            if refused.dul.socket is not None and refused.dul.socket.socket is not None:
                refused.dul.socket.socket.close()  # pynetdicom leaves one open that was cut off
        finally:
            stop.set()
            thread.join()
    events = [json.loads(record.message) for record in caplog.records]
    # What keeps everybody out: an address of this machine alone.
    assert {event["address"] for event in events if event["event"] == "listening"} == {"127.0.0.1"}
    *titles, unsafe = [event["reason"] for event in events if event["event"] == "refused"]
    assert titles == [
        "it asked for the AE title OTHER",
        "takes none of Segmentation Storage, an unknown class",
        "it is none of the callers",
    ]
    assert unsafe.startswith("TLS: ")  # the words are OpenSSL's


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pynetdicom's open socket
@pytest.mark.parametrize(
    ("name", "host", "reason"),
    [
        ("away", "127.0.0.1", "refused"),
        ("away", "archive.invalid", "archive.invalid:.* cannot be reached"),
        ("caller", "127.0.0.1", "Calling AE title not recognised"),
        ("certificate", "127.0.0.1", "its certificate: .*self.signed"),
    ],
)
def test_an_archive_that_cannot_be_sent_to_says_why(
    certificates: Tls, tmp_path: Path, name: str, host: str, reason: str
) -> None:
    tls = certificates if name == "certificate" else None
    archive = Archive(tls=tls)
    if name == "away":
        archive.server.shutdown()
    archive.server.ae.require_calling_aet = ["SOMEBODY"]
    if tls is not None:  # ours is another authority
        run = "openssl req -newkey rsa:2048 -nodes -subj /CN=x -x509 -keyout x.key -out x.pem -days 2"
        subprocess.run(run.split(), check=True, capture_output=True, cwd=tmp_path)
        tls = tls.model_copy(update={"authority": tmp_path / "x.pem"})
    target = Send(dimse=Dimse(ae_title="ARCHIVE", host=host, port=archive.port, timeout_s=5, tls=tls))
    empty = Dataset()
    empty.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.66.4")
    empty.file_meta = FileMetaDataset()
    empty.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    try:
        with pytest.raises(SendError, match=reason) as raised:
            send([empty], target)
        assert not raised.value.final
        del raised
        gc.collect()  # here, where the warning is expected
    finally:
        if name != "away":
            archive.server.shutdown()


def reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def wait_for(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def associate(config: PacsConfig, *context: str, caller: str = "CAMERA") -> Any:
    entity = AE(ae_title=caller)
    entity.add_requested_context(*context)
    tls = config.listen.tls
    return entity.associate(
        "127.0.0.1",
        config.listen.port,
        ae_title=config.listen.ae_title,
        tls_args=None if tls is None else (tls.context(server=False), "127.0.0.1"),
    )


def store(config: PacsConfig, dataset: Dataset, caller: str = "CAMERA") -> int | None:
    assert dataset.SOPClassUID in IMAGE_CLASSES
    association = associate(config, dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID, caller=caller)
    if not association.is_established:
        return None
    status = association.send_c_store(dataset).Status
    association.release()
    return int(status)
