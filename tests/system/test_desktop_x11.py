"""The desktop program on a real X server, as its users start it; the other tests draw into memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermseg.data.synthetic import synthesize

WIDTH, HEIGHT = 1200, 800

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11 is Linux")
pytest.importorskip("PySide6", reason="needs the extra [desktop]")


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An X server: its display, and the file that holds what is on its screen."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt-get install xvfb)")
    read, write = os.pipe()
    command = [
        "Xvfb",
        "-displayfd",
        str(write),
        "-screen",
        "0",
        f"{WIDTH}x{HEIGHT}x24",
        "-fbdir",
        str(tmp_path),
    ]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as file:
        display = file.readline().strip()
    assert display, "Xvfb did not start"
    yield f":{display}", tmp_path / "Xvfb_screen0"
    server.terminate()
    server.wait(30)


def shown(file: Path) -> np.ndarray:
    """What is on the screen, uint8 (H, W, 3) BGR."""
    data = file.read_bytes()[-4 * WIDTH * HEIGHT :]
    return np.frombuffer(data, np.uint8).reshape(HEIGHT, WIDTH, 4)[..., :3]


def test_a_window_with_the_photograph_opens_and_ctrl_c_closes_it(
    screen: tuple[str, Path], tmp_path: Path
) -> None:
    photographs = tmp_path / "photos"
    photographs.mkdir()
    picture, _, _ = synthesize(3, (360, 480))
    cv2.imwrite(str(photographs / "a.png"), picture[..., ::-1])
    display, file = screen
    environment = {k: v for k, v in os.environ.items() if k not in ("QT_QPA_PLATFORM", "WAYLAND_DISPLAY")}
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "desktop", str(photographs)]
    skin = np.median(picture.reshape(-1, 3), axis=0)[::-1]
    with (tmp_path / "said.txt").open("w+") as said:
        program = subprocess.Popen(command, env={**environment, "DISPLAY": display}, stderr=said)
        deadline = time.monotonic() + 60
        share = 0.0
        while share < 0.1 and time.monotonic() < deadline and program.poll() is None:
            time.sleep(0.2)
            # the photograph takes the middle of the window, whose own colours are dark
            share = (np.abs(shown(file).astype(int) - skin).max(axis=-1) < 30).mean()
        program.send_signal(signal.SIGINT)
        code = program.wait(30)
        said.seek(0)
        assert share >= 0.1 and code == 0, said.read()
