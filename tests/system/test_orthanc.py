"""dermseg beside a real archive: Orthanc with its DICOMweb plugin, started here on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("highdicom", reason='needs the extra: pip install "dermseg[dicom]"')
import requests
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

PLUGINS = Path("/usr/share/orthanc/plugins")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:pydicom")]


@pytest.fixture(scope="session")
def files() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dicom_files", ROOT / "tests" / "dicom" / "files.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (value := condition()) is not None and value is not False:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


class Orthanc:
    """An Orthanc of its own: folder, ports, process."""

    def __init__(self, folder: Path, listener_port: int) -> None:
        self.http, self.dimse = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http}"
        settings = {
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "HttpPort": self.http,
            "DicomPort": self.dimse,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "UnknownSopClassAccepted": True,  # 1.10 does not know Dermoscopic Photography
            "DicomModalities": {"dermseg": ["DERMSEG", "127.0.0.1", listener_port]},
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "OverwriteInstances": False,
        }
        folder.mkdir(parents=True)
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.log = (folder / "orthanc.log").open("wb")
        self.process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], stdout=self.log, stderr=subprocess.STDOUT
        )
        wait_for(self._up)

    def _up(self) -> bool:
        try:
            return requests.get(f"{self.url}/system", timeout=2).ok
        except requests.ConnectionError:
            return False

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()

    def get(self, path: str) -> Any:
        return requests.get(f"{self.url}{path}", timeout=30).json()

    def post(self, path: str, data: Any) -> Any:
        body = data if isinstance(data, bytes) else json.dumps(data)
        answer = requests.post(f"{self.url}{path}", data=body, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def put(self, data: bytes) -> str:
        return str(self.post("/instances", data)["ID"])

    def instances(self) -> list[Dataset]:
        """The headers of all that is stored."""
        found = []
        for identifier in self.get("/instances"):
            data = requests.get(f"{self.url}/instances/{identifier}/file", timeout=30).content
            found.append(dcmread(BytesIO(data)))
        return found

    def results(self) -> list[Dataset]:
        return [ds for ds in self.instances() if ds.Manufacturer == "dermseg"]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Orthanc, int]]:
    if shutil.which("Orthanc") is None or not (PLUGINS / "libOrthancDicomWeb.so").exists():
        pytest.skip("Orthanc is not installed (Debian packages orthanc and orthanc-dicomweb)")
    port = free_port()
    orthanc = Orthanc(tmp_path / "orthanc", port)
    try:
        yield orthanc, port
    finally:
        orthanc.close()


def configure(folder: Path, orthanc: Orthanc, port: int, bundle: Path, **changes: Any) -> Path:
    web = {"url": f"{orthanc.url}/dicom-web"}
    target = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dimse}
    settings: dict[str, Any] = {
        "folder": "work",
        "model": str(bundle),
        "results": ["dicom-seg", "dicom-probability", "dicom-sr", "dicom-sc"],
        "listen": {"port": port},
        "send": {"dimse": target},
        "watch": {"web": web, "poll_s": 0.5, "days": None},
        "retry": {"first_s": 0.2, "longest_s": 1.0},
        "audit": "audit.jsonl",
    }
    settings |= changes
    if settings["send"] == "web":
        settings["send"] = {"web": web}
    path = folder / "pacs.yaml"
    path.write_text(json.dumps(settings))  # JSON is YAML
    return path


@contextmanager
def service(verb: str, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process of its own, ended politely."""
    log = (config.parent / f"{verb}.log").open("ab")
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "dicom", verb, str(config)]
    process = subprocess.Popen(command, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        log.close()


def answers_echo(port: int) -> bool:
    try:  # pynetdicom leaves a socket open where nobody listens
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    entity = AE(ae_title="PROBE")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", port, ae_title="DERMSEG")
    if not association.is_established:
        return False
    association.send_c_echo()
    association.release()
    return True


def queue_counts(config: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "dicom", "queue", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("way", ["dimse", "web"])
def test_received_segmented_and_sent_back(
    archive: tuple[Orthanc, int], files: ModuleType, tiny_bundle: Path, tmp_path: Path, way: str
) -> None:
    orthanc, port = archive
    changes = {"send": "web"} if way == "web" else {}
    config = configure(tmp_path, orthanc, port, tiny_bundle, **changes)
    photographs = [
        files.photograph(kind=kind, encoding=encoding, spacing=(0.02, 0.02))
        for kind, encoding in (("dermoscopic", "jpeg"), ("photographic", "explicit"), ("capture", "jpeg2000"))
    ]
    stored = [orthanc.put(files.to_bytes(ds)) for ds in photographs]
    with service("listen", config):
        wait_for(lambda: answers_echo(port))
        for _ in range(2):  # the second time all are duplicates
            orthanc.post("/modalities/dermseg/store", stored)
        wait_for(lambda: len(orthanc.results()) == 4 * len(photographs))
        time.sleep(1)
    results = orthanc.results()
    assert len(results) == 4 * len(photographs)
    for photograph in photographs:
        mine = {ds.Modality: ds for ds in results if ds.StudyInstanceUID == photograph.StudyInstanceUID}
        assert set(mine) == {"SEG", "SR", "OT"}
        binary = next(
            ds for ds in results
            if ds.get("SegmentationType") == "BINARY" and ds.StudyInstanceUID == photograph.StudyInstanceUID
        )  # fmt: skip
        expected = files.lesion().mean(axis=2) < 127
        assert (binary.pixel_array.astype(bool) == expected).mean() > 0.97
    counts = queue_counts(config)
    assert (counts["sent"], counts["received"], counts["made"], counts["dead"]) == (3, 0, 0, 0)
    assert not list((tmp_path / "work" / "received").iterdir())
    audit = [sys.executable, "-m", "dermseg.apps.cli.main", "audit", "verify", str(tmp_path / "audit.jsonl")]
    assert subprocess.run(audit, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "audit.jsonl").read_text().count('"event":"result"') == 3
    log = (tmp_path / "listen.log").read_text()
    assert "P-0815" not in log and "Doe" not in log and photographs[0].SOPInstanceUID not in log


def test_watching_over_dicomweb(
    archive: tuple[Orthanc, int], files: ModuleType, tiny_bundle: Path, tmp_path: Path
) -> None:
    orthanc, port = archive
    config = configure(tmp_path, orthanc, port, tiny_bundle, send="web", results=["dicom-seg"])
    first, second = files.photograph(encoding="jpeg"), files.photograph(kind="photographic")
    orthanc.put(files.to_bytes(first))
    with service("watch", config):
        wait_for(lambda: len(orthanc.results()) == 1)
        second.StudyInstanceUID = first.StudyInstanceUID  # the same study grows
        orthanc.put(files.to_bytes(second))
        wait_for(lambda: len(orthanc.results()) == 2)
        time.sleep(2)
    assert len(orthanc.results()) == 2
    assert queue_counts(config)["sent"] == 2


def test_an_archive_that_is_away_and_damaged_images(
    archive: tuple[Orthanc, int], files: ModuleType, tiny_bundle: Path, tmp_path: Path
) -> None:
    orthanc, port = archive
    away = {"dimse": {"ae_title": "NOBODY", "host": "127.0.0.1", "port": free_port(), "timeout_s": 2}}
    config = configure(
        tmp_path,
        orthanc,
        port,
        tiny_bundle,
        send=away,
        retry={"attempts": 3, "first_s": 0.1, "longest_s": 0.2},
    )
    damaged = files.photograph(encoding="jpeg")
    damaged.Rows = 5000
    sent = [orthanc.put(files.to_bytes(ds)) for ds in (files.photograph(), damaged)]
    with service("listen", config):
        wait_for(lambda: answers_echo(port))
        orthanc.post("/modalities/dermseg/store", sent)
        wait_for(lambda: queue_counts(config)["dead"] == 2)
    reasons = sorted(letter["reason"] for letter in queue_counts(config)["dead_letters"])
    assert "NOBODY" in reasons[0] and "two sizes" in reasons[1]
    config = configure(tmp_path, orthanc, port, tiny_bundle)
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "dicom", "queue", str(config), "--retry"]
    subprocess.run(command, check=False, capture_output=True)
    with service("listen", config):
        wait_for(lambda: len(orthanc.results()) == 4)
        wait_for(lambda: queue_counts(config)["dead"] == 1)


def test_storage_commitment(
    archive: tuple[Orthanc, int], files: ModuleType, tiny_bundle: Path, tmp_path: Path
) -> None:
    orthanc, port = archive
    config = configure(
        tmp_path, orthanc, port, tiny_bundle, results=["dicom-seg"],
        listen={"port": port, "storage_commitment": True},
    )  # fmt: skip
    ds, never = files.photograph(), files.photograph()
    with service("listen", config):
        wait_for(lambda: answers_echo(port))
        orthanc.post("/modalities/dermseg/store", [orthanc.put(files.to_bytes(ds))])
        wait_for(lambda: len(orthanc.results()) == 1)
        asked = {"DicomInstances": [[d.SOPClassUID, d.SOPInstanceUID] for d in (ds, never)]}
        started = orthanc.post("/modalities/dermseg/storage-commitment", asked)
        report = wait_for(lambda: (r := orthanc.get(started["Path"]))["Status"] != "Pending" and r)
    assert [item["SOPInstanceUID"] for item in report["Success"]] == [ds.SOPInstanceUID]
    assert [item["SOPInstanceUID"] for item in report["Failures"]] == [never.SOPInstanceUID]


def test_kill_at_any_moment_loses_nothing_and_doubles_nothing(
    archive: tuple[Orthanc, int], files: ModuleType, tiny_bundle: Path, tmp_path: Path
) -> None:
    kills = int(os.environ.get("DERMSEG_KILLS", "3"))
    orthanc, port = archive
    config = configure(tmp_path, orthanc, port, tiny_bundle, results=["dicom-seg", "dicom-sr"])
    chance = random.Random(5)
    accepted: set[str] = set()
    for _ in range(kills):
        with service("listen", config) as process:
            wait_for(lambda: answers_echo(port))
            deadline = time.monotonic() + chance.uniform(0.1, 2.5)
            for _ in range(3):
                if time.monotonic() < deadline:
                    accepted |= store(port, [files.photograph(kind="photographic") for _ in range(2)])
            time.sleep(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.wait()
    with service("listen", config):
        wait_for(lambda: answers_echo(port))
        wait_for(lambda: (counts := queue_counts(config))["received"] + counts["made"] == 0, 600)
    results = orthanc.results()
    sources = [ds for ds in results if ds.Modality == "SEG"]
    found = [
        ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
        .ReferencedSOPInstanceUID for ds in sources
    ]  # fmt: skip
    assert len(found) == len(set(found))
    assert accepted <= set(found) and len(results) == 2 * len(sources)
    assert np.all([ds.pixel_array.any() for ds in sources])
    assert queue_counts(config)["dead"] == 0


def store(port: int, datasets: list[Dataset]) -> set[str]:
    """C-STORE; the UIDs whose receipt was confirmed."""
    entity = AE(ae_title="CAMERA")
    for dataset in datasets:
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="DERMSEG")
    confirmed = set()
    if association.is_established:
        for dataset in datasets:
            if association.send_c_store(dataset).get("Status") == 0:
                confirmed.add(str(dataset.SOPInstanceUID))
        association.release()
    return confirmed
