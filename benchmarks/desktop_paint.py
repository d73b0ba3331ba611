"""Frame time while painting in the desktop program, on an image of 6000x4000 pixels.

From the mouse's move to the pixels in the window: stroke, composing, painting. Run it on a screen or under
``xvfb-run``; ``--json`` prints the figures as one object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from dermseg.apps.desktop.session import Session
from dermseg.apps.desktop.texts import Texts
from dermseg.apps.desktop.theme import apply_theme
from dermseg.apps.desktop.window import Window
from dermseg.data.synthetic import synthesize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(6000, 4000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--strokes", type=int, default=12)
    parser.add_argument("--moves", type=int, default=60, help="mouse moves of a stroke")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    width, height = given.size
    app = QApplication(sys.argv[:1])
    apply_theme(app)
    with tempfile.TemporaryDirectory() as folder:
        small, _, _ = synthesize(3, (height // 8, width // 8))
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(f"{folder}/large.jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        window = Window(Session(), Texts("en"))
        window.resize(1600, 1000)
        window.show()
        window.open_inputs([Path(folder)])
        while window.session.opened is None or window.session.opened.document.status == "new":
            app.processEvents()
            time.sleep(0.01)
        found = {}
        for name, scale in (("whole image", None), ("full size", 1.0)):
            if scale is not None:
                window.canvas.zoom_to(scale)
            found[name] = paint(app, window, given.strokes, given.moves)
        window.close()
    if given.json:
        print(json.dumps({"width": width, "height": height, "frames": found}))
    else:
        for name, row in found.items():
            print(name, row)


def paint(app: QApplication, window: Window, strokes: int, moves: int) -> dict[str, float]:
    """Frame times in ms of strokes from one side of the canvas to the other."""
    canvas = window.canvas
    canvas.frame_times.clear()
    ends, cpu = [], []
    for number in range(strokes):
        y = round(canvas.height() * (number + 1) / (strokes + 1))
        QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=QPoint(20, y))
        for move in range(moves):
            worked = time.thread_time()
            QTest.mouseMove(canvas, QPoint(20 + move * (canvas.width() - 40) // moves, y + move % 7 * 3))
            app.processEvents()
            cpu.append(time.thread_time() - worked)
        began = time.perf_counter()
        QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=QPoint(canvas.width() - 20, y))
        ends.append(time.perf_counter() - began)
    times = np.array(canvas.frame_times) * 1000
    return {
        "frames": len(times),
        "median_ms": round(float(np.median(times)), 2),
        "p95_ms": round(float(np.percentile(times, 95)), 2),
        "max_ms": round(float(times.max()), 2),
        # of the window's thread alone: what the frame costs when nobody else has the CPU
        "p95_cpu_ms": round(float(np.percentile(cpu, 95)) * 1000, 2),
        "stroke_end_median_ms": round(float(np.median(ends)) * 1000, 2),
    }


if __name__ == "__main__":
    main()
