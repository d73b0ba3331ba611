"""Live segmentation: frames of a camera (or of a film), each with the model's mask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, QThread, Signal

from dermseg.errors import DermsegError
from dermseg.inference.predictor import Model

SIDE = 512  # pixels of the square that is shown and segmented
_SMOOTHING = 0.9  # of the displayed rate


class Camera(QThread):
    """Reads, cuts to a square and segments frames until it is stopped. A slow window gets fewer, not older.

    Parameters
    ----------
    source
        Number of the camera, or path of a film.
    load
        Gives the model; called in the thread.

    Signals
    -------
    frame
        uint8 (512, 512, 3) RGB, bool (512, 512) mask, and frames per second. Call ``shown`` when it is drawn.
    failed
        One line.
    """

    frame = Signal(object, object, float)
    failed = Signal(str)

    def __init__(self, source: int | str, load: Callable[[], Model], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._source, self._load = source, load
        self._stop = threading.Event()
        self._room = threading.Semaphore(2)  # one frame is drawn while the next is made

    def run(self) -> None:
        """The thread."""
        capture = cv2.VideoCapture(self._source)
        try:
            if not capture.isOpened():
                self.failed.emit(f"camera {self._source} cannot be opened")
                return
            model = self._load()
            rate, last = 0.0, time.perf_counter()
            while not self._stop.is_set():
                good, picture = capture.read()
                if not good:  # unplugged, or a film's end: what is seen is the last picture
                    self.failed.emit(f"camera {self._source} gives no more pictures")
                    return
                if not self._room.acquire(timeout=0.05):
                    continue  # the window is busy: this frame is already old
                pixels = square(np.asarray(picture, np.uint8))
                mask = model.segment(pixels).mask
                now = time.perf_counter()
                current = 1 / max(now - last, 1e-6)
                rate, last = (current if rate == 0 else _SMOOTHING * rate + (1 - _SMOOTHING) * current), now
                self.frame.emit(pixels, mask, rate)
        except DermsegError as error:
            self.failed.emit(str(error))
        finally:
            capture.release()

    def shown(self) -> None:
        """There is room for another frame."""
        self._room.release()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self.wait()


def square(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of a camera's picture (uint8, blue first) as a square RGB image of 512 pixels."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    part = picture[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    resized = cv2.resize(part, (SIDE, SIDE), interpolation=how)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB), np.uint8)
