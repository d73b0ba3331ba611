"""The main job neither needs nor looks for a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from dermseg.data.synthetic import synthesize

# Runs the program and ends with code 99 at the first name that is looked up or address that is connected to.
WATCHED = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("NETWORK", event, arguments, file=sys.stderr, flush=True)
        os._exit(99)
sys.addaudithook(watch)
from dermseg.apps.cli.main import main
main()
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "lesion.jpg"
    cv2.imwrite(str(path), synthesize(7, (300, 400))[0][..., ::-1])
    return path


def segment(prefix: list[str], image: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", WATCHED, "segment", str(image), "-o", str(out), "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_segment_opens_no_connection(image: Path, tmp_path: Path) -> None:
    done = segment([], image, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 1


def test_no_runtime_gives_this_device_an_id(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime reports from native code, which the hook does not see, but stores its id first."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    done = segment([], image, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in home.rglob("*") if "dermseg" not in path.parts] == []


def test_segment_works_in_an_empty_network_namespace(image: Path, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if not sys.platform.startswith("linux") or unshare is None:
        pytest.skip("network namespaces need Linux and the program unshare")
    empty = [unshare, "--map-root-user", "--net"]
    probe = subprocess.run([*empty, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"this system allows no network namespaces: {probe.stderr.strip()}")
    done = segment(empty, image, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == 0
    assert (tmp_path / "out" / "masks" / "lesion_segmentation.png").is_file()
