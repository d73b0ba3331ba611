"""The desktop program as a user drives it: propose, correct with each tool, undo, save, reopen, crash."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6.QtWidgets", reason="needs the extra [desktop]", exc_type=ImportError)
pytest.importorskip("pytestqt", reason="needs pytest-qt (make test-system)")

from PIL import Image
from PySide6.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from PySide6.QtGui import QAction, QContextMenuEvent, QDragEnterEvent, QDropEvent, QKeyEvent
from PySide6.QtWidgets import QApplication, QLabel, QLineEdit, QMessageBox, QToolBar

from dermseg.apps.cli.main import main
from dermseg.apps.desktop import texts as words
from dermseg.apps.desktop.app import fit_screen, speak
from dermseg.apps.desktop.panels import disagreement_rows, reading_rows
from dermseg.apps.desktop.questions import Questions
from dermseg.apps.desktop.session import Session
from dermseg.apps.desktop.texts import Texts
from dermseg.apps.desktop.theme import CLASS_COLOURS
from dermseg.apps.desktop.view import View
from dermseg.apps.desktop.window import Window
from dermseg.apps.desktop.worker import Worker
from dermseg.data.labelme import draw_labels, read_labelme
from dermseg.data.proposals import is_proposal
from dermseg.data.synthetic import synthesize
from dermseg.errors import DataError, ImageError, UsageError
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.inference.predictor import load_model
from dermseg.labeling.editor import files
from dermseg.labeling.editor.compare import compare_layers
from dermseg.labeling.editor.journal import journal_path
from dermseg.measure.geometry import measure_mask
from dermseg.quality.verdict import REJECT_WORDS, WORDS

SIZE = (360, 480)
LEFT = Qt.MouseButton.LeftButton
Open = Callable[..., Window]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(("a", "b", "c")):
        image, _, _ = synthesize(seed + 3, SIZE)
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


@pytest.fixture
def show(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    windows: list[Window] = []
    monkeypatch.setattr(Questions, "may_drop", lambda *_: True)  # a test never hangs on a dialog

    def start(
        folder: Path | None,
        *,
        language: str = "en",
        second: Path | None = None,
        output: Path | None = None,
    ) -> Window:
        window = Window(Session(output=output, second=second), Texts(language))
        qtbot.addWidget(window)
        windows.append(window)
        window.show()
        if folder is not None:
            window.open_inputs([folder])
            ready(qtbot, window)
        return window

    yield start
    for window in windows:
        window.close()


def ready(qtbot: Any, window: Window) -> None:
    """Wait until the image is open and the model has proposed."""

    def check() -> None:
        assert window.session.opened is not None and window.session.opened.document.status != "new"

    qtbot.waitUntil(check, timeout=60_000)


def at(window: Window, x: float, y: float) -> QPoint:
    assert window.canvas.renderer is not None
    sx, sy = window.canvas.renderer.to_screen(x, y)
    return QPoint(round(sx), round(sy))


def drag(qtbot: Any, window: Window, *points: tuple[float, float], button: Any = LEFT) -> None:
    qtbot.mouseMove(window.canvas, at(window, *points[0]))
    qtbot.mousePress(window.canvas, button, pos=at(window, *points[0]))
    for point in points[1:]:
        qtbot.mouseMove(window.canvas, at(window, *point))
    qtbot.mouseRelease(window.canvas, button, pos=at(window, *points[-1]))


def key(qtbot: Any, window: Window, letter: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
    window.canvas.setFocus()
    qtbot.keyClick(window.canvas, letter, modifier)


def lesion(window: Window) -> np.ndarray:
    assert window.session.opened is not None
    return window.session.opened.document.layer("lesion")


CTRL = Qt.KeyboardModifier.ControlModifier


def test_every_tool_undo_save_and_reopen(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    proposed = lesion(window).copy()
    assert proposed.any() and "proposed" in window.file_list.item(0).text()
    states = [proposed]

    def changed(more: bool) -> None:
        now = lesion(window).copy()
        assert (now.sum() > states[-1].sum()) == more and not np.array_equal(now, states[-1])
        states.append(now)

    key(qtbot, window, Qt.Key.Key_B)
    drag(qtbot, window, (10, 10), (60, 12), (100, 30))
    changed(True)
    key(qtbot, window, Qt.Key.Key_E)
    drag(qtbot, window, (30, 5), (30, 30))
    changed(False)
    key(qtbot, window, Qt.Key.Key_G)
    for point in ((20, 200), (70, 200), (70, 260)):
        qtbot.mouseClick(window.canvas, LEFT, pos=at(window, *point))
    key(qtbot, window, Qt.Key.Key_Return, CTRL)
    changed(True)
    key(qtbot, window, Qt.Key.Key_L)
    drag(qtbot, window, (400, 20), (460, 20), (460, 60), (400, 60))
    changed(True)
    assert lesion(window)[40, 430]
    drag(qtbot, window, (400, 20), (460, 20), (460, 40), (400, 40), button=Qt.MouseButton.RightButton)
    changed(False)
    key(qtbot, window, Qt.Key.Key_Up, CTRL)
    changed(True)
    key(qtbot, window, Qt.Key.Key_Down, CTRL)
    changed(False)
    key(qtbot, window, Qt.Key.Key_F)
    qtbot.mouseClick(window.canvas, LEFT, pos=at(window, 470, 350))
    changed(True)
    for state in states[-2::-1]:
        key(qtbot, window, Qt.Key.Key_Z, CTRL)
        assert np.array_equal(lesion(window), state)
    for state in states[1:]:
        key(qtbot, window, Qt.Key.Key_Y, CTRL)
        assert np.array_equal(lesion(window), state)
    key(qtbot, window, Qt.Key.Key_S, CTRL)
    saved = read_labelme((photographs / "a.json").read_bytes())
    assert np.array_equal(draw_labels(saved, ["lesion"]), states[-1])
    window.close()

    again = show(photographs)
    assert np.array_equal(lesion(again), states[-1])
    key(qtbot, again, Qt.Key.Key_A)  # approve: saved, next image
    assert "approved" in again.file_list.item(0).text() and again.file_list.currentRow() == 1
    assert json.loads((photographs / "a.json").read_bytes())["flags"] == {"approved": True}


def test_box_and_click_ask_the_model_for_one_lesion(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    rows, columns = np.nonzero(lesion(window))
    x, y = int(columns.mean()), int(rows.mean())
    for letter, name in ((Qt.Key.Key_M, "box"), (Qt.Key.Key_K, "click")):
        key(qtbot, window, letter)
        document = window.session.opened.document  # type: ignore[union-attr]
        if name == "box":
            drag(qtbot, window, (columns.min(), rows.min()), (columns.max(), rows.max()))
        else:
            key(qtbot, window, Qt.Key.Key_Z, CTRL)
            key(qtbot, window, Qt.Key.Key_Z, CTRL)
            qtbot.mouseClick(window.canvas, LEFT, pos=at(window, x, y))
        qtbot.waitUntil(lambda: document.last_step == name, timeout=60_000)  # noqa: B023
        assert lesion(window)[y, x]
    qtbot.mouseClick(window.canvas, Qt.MouseButton.RightButton, pos=at(window, x, y))
    qtbot.waitUntil(lambda: not lesion(window)[y, x], timeout=60_000)


def test_keyboard_alone_paints(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    before = lesion(window).copy()
    key(qtbot, window, Qt.Key.Key_B)
    for _ in range(30):
        key(qtbot, window, Qt.Key.Key_Left)
    key(qtbot, window, Qt.Key.Key_Return)
    for _ in range(20):
        key(qtbot, window, Qt.Key.Key_Up)
    key(qtbot, window, Qt.Key.Key_Return)
    assert lesion(window).sum() > before.sum()
    key(qtbot, window, Qt.Key.Key_Z, CTRL)
    assert np.array_equal(lesion(window), before)
    for arrow, step in ((Qt.Key.Key_Up, (0, -1)), (Qt.Key.Key_Right, (1, 0)), (Qt.Key.Key_Down, (0, 1))):
        where = window.canvas._cursor
        key(qtbot, window, arrow, Qt.KeyboardModifier.ShiftModifier)
        assert (window.canvas._cursor - where).toTuple() == step
    key(qtbot, window, Qt.Key.Key_PageDown)
    qtbot.waitUntil(lambda: window.session.row == 1 and window.session.opened is not None, timeout=60_000)


def test_the_keyboard_reaches_every_part_of_an_enlarged_image(
    qtbot: Any, show: Open, photographs: Path
) -> None:
    window = show(photographs)
    renderer = window.canvas.renderer
    assert renderer is not None
    whole = (renderer.left, renderer.top)
    for _ in range(90):
        key(qtbot, window, Qt.Key.Key_Right)
    assert (renderer.left, renderer.top) == whole, "there is no more to be seen"
    window.canvas.zoom_to(4 * renderer.scale)
    size, painted = np.array(renderer.frame.shape[:2]), lesion(window).copy()
    key(qtbot, window, Qt.Key.Key_B)
    for arrow in (Qt.Key.Key_Right, Qt.Key.Key_Down):
        for _ in range(400):
            window.canvas.keyPressEvent(
                QKeyEvent(QEvent.Type.KeyPress, arrow, Qt.KeyboardModifier.NoModifier)
            )
    end = np.array([renderer.top, renderer.left]) + size / renderer.scale
    assert np.allclose(end, SIZE, atol=0.01), "as far as the corner, and no farther"
    key(qtbot, window, Qt.Key.Key_Return)
    key(qtbot, window, Qt.Key.Key_Return)
    assert lesion(window)[-1, -1] and not painted[-1, -1]
    for arrow in (Qt.Key.Key_Left, Qt.Key.Key_Up):
        for _ in range(400):
            window.canvas.keyPressEvent(
                QKeyEvent(QEvent.Type.KeyPress, arrow, Qt.KeyboardModifier.NoModifier)
            )
    assert np.allclose((renderer.left, renderer.top), 0, atol=0.01)


def test_threshold_moves_the_proposal_but_never_a_drawing(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    before = int(lesion(window).sum())
    window.sliders.set_value("Threshold", 0.95)
    qtbot.waitUntil(lambda: int(lesion(window).sum()) < before, timeout=60_000)
    drag(qtbot, window, (10, 10), (60, 12))
    drawn = lesion(window).copy()
    window.sliders.set_value("Threshold", 0.1)
    assert window.message.text() == "The drawing stays; P asks the model with this threshold"
    qtbot.wait(300)
    assert np.array_equal(lesion(window), drawn)


@pytest.mark.parametrize("status", ["corrected", "approved"])
def test_threshold_never_moves_a_drawing_from_a_file(
    qtbot: Any, show: Open, photographs: Path, status: str
) -> None:
    window = show(photographs)
    if status == "corrected":
        drag(qtbot, window, (10, 10), (60, 12))
    else:  # a proposal that a person found good: moving the threshold at once must not count either
        window.session.opened.document.set_status("approved")  # type: ignore[union-attr]
        with qtbot.assertNotEmitted(window.assistant.worker.busy):
            key(qtbot, window, Qt.Key.Key_T)
    drawn = lesion(window).copy()
    key(qtbot, window, Qt.Key.Key_N)
    ready(qtbot, window)
    key(qtbot, window, Qt.Key.Key_V)
    ready(qtbot, window)
    with qtbot.assertNotEmitted(window.assistant.worker.busy, wait=300):
        for _ in range(3):
            key(qtbot, window, Qt.Key.Key_T)
    assert np.array_equal(lesion(window), drawn)
    key(qtbot, window, Qt.Key.Key_N)
    assert status in window.file_list.item(0).text()
    saved = read_labelme((photographs / "a.json").read_bytes())
    assert np.array_equal(draw_labels(saved, ["lesion"]), drawn)


def test_the_threshold_shown_is_that_of_the_outline(qtbot: Any, show: Open, photographs: Path) -> None:
    """Of an image opened again "higher" took it from 0.56 to 0.55, and from the image before to the next."""
    window = show(photographs)
    own = window.session.model().card.postprocessing.threshold
    window.sliders.set_value("Width", 40)
    window.step(1)
    ready(qtbot, window)
    assert window.sliders.value("Width") == 40, "the tool stays as it was chosen"
    window.sliders.set_value("Threshold", 0.9)
    qtbot.waitUntil(lambda: window.session.result is not None and window.session.result.threshold == 0.9)
    qtbot.waitUntil(lambda: not window.assistant.worker.working, timeout=60_000)
    window.step(-1)
    qtbot.waitUntil(lambda: window.session.opened is not None, timeout=60_000)
    assert window.sliders.value("Threshold") == round(own, 2)
    window.step(1)
    qtbot.waitUntil(lambda: window.session.opened is not None, timeout=60_000)
    assert window.sliders.value("Threshold") == 0.9


def test_the_threshold_comes_back_to_that_of_the_model(qtbot: Any, show: Open, photographs: Path) -> None:
    """Higher and lower again, and it was 0.56 instead of 0.5563: not the mask that `segment` writes."""
    window = show(photographs)
    own, before = window.session.model().card.postprocessing.threshold, lesion(window).copy()
    assert own != round(own, 2), "else this test says nothing"
    for modifier in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier):
        key(qtbot, window, Qt.Key.Key_T, modifier)
        qtbot.waitUntil(lambda: not window.assistant.worker.working, timeout=60_000)
    assert window.session.result is not None and window.session.result.threshold == own
    assert np.array_equal(lesion(window), before)


def hold_model(window: Any, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The window's model answers when the event is set."""
    model, looked = window.session.model(), threading.Event()

    def slow() -> Any:
        looked.wait(30)
        return model

    monkeypatch.setattr(window.session, "model", slow)
    return looked


def test_a_proposal_that_comes_after_a_stroke_is_dropped(
    qtbot: Any, show: Open, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = show(photographs)
    looked = hold_model(window, monkeypatch)
    window.assistant.propose()
    drag(qtbot, window, (10, 10), (60, 12))
    drawn = lesion(window).copy()
    looked.set()
    qtbot.waitUntil(lambda: window.message.text() == "", timeout=60_000)
    assert np.array_equal(lesion(window), drawn) and "corrected" in window.file_list.item(0).text()


def test_what_the_model_still_looks_at_is_not_approved_as_empty(
    qtbot: Any, show: Open, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = show(photographs)
    looked = hold_model(window, monkeypatch)
    key(qtbot, window, Qt.Key.Key_N)
    qtbot.waitUntil(lambda: window.session.row == 1 and window.session.opened is not None, timeout=60_000)
    key(qtbot, window, Qt.Key.Key_A)
    assert window.session.row == 1 and "The model looks at the image" in window.message.text()
    looked.set()
    ready(qtbot, window)
    key(qtbot, window, Qt.Key.Key_A)
    assert window.file_list.currentRow() == 2
    assert draw_labels(read_labelme((photographs / "b.json").read_bytes()), ["lesion"]).any()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is where not even root can make a folder")
def test_where_nothing_can_be_saved_nothing_is_lost_without_a_question(
    qtbot: Any, show: Open, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = show(photographs, output=Path("/proc/dermseg"))
    assert lesion(window).any() and "nothing can be saved here" in window.message.text()
    assert window.canvas.renderer is not None and window.canvas.renderer.layers[0].mask.any()
    window.step(1)  # a proposal alone holds nobody up: it can be had again
    ready(qtbot, window)
    drag(qtbot, window, (10, 10), (60, 12))
    drawn = lesion(window).copy()
    assert "nothing can be saved here" in window.message.text() and "-o" in window.message.text()
    where = window.file_list.visualItemRect(window.file_list.item(2)).center()
    qtbot.mouseClick(window.file_list.viewport(), LEFT, pos=where)
    qtbot.wait(50)
    assert window.file_list.currentRow() == window.session.row == 1
    assert [item.text().split()[0] for item in window.file_list.selectedItems()] == ["b.png"]
    assert window.windowTitle() == "b.png - dermseg" and np.array_equal(lesion(window), drawn)
    assert "cannot be written" in window.message.text()

    asked: list[str] = []

    def may_drop(self: Questions, name: str, error: Exception) -> bool:
        asked.append(name)
        return len(asked) == 2

    monkeypatch.setattr(Questions, "may_drop", may_drop)
    assert not window.close() and window.isVisible() and np.array_equal(lesion(window), drawn)
    assert window.close() and asked == ["b.png", "b.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is where not even root can make a folder")
def test_a_second_reader_without_a_reading_hides_no_warning(
    qtbot: Any, show: Open, photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "anna").mkdir()
    window = show(photographs, output=Path("/proc/dermseg"), second=tmp_path / "anna")
    drag(qtbot, window, (10, 10), (60, 12))
    for _ in range(2):
        qtbot.waitUntil(lambda: "has drawn nothing" in window.message.text(), timeout=60_000)
        assert window.message.text().count("has drawn nothing") == 1
        assert "nothing can be saved here" in window.message.text()
        window.readout.compare()


def test_a_folder_of_results_has_no_photograph(show: Open, photographs: Path) -> None:
    """What `segment` wrote, to be corrected, say: it was a traceback."""
    shutil.copytree(photographs, photographs / "out" / "overlays")
    (photographs / "out" / "masks").mkdir()
    (photographs / "out" / "run.json").write_text("{}")
    (photographs / "c_lesion.png").write_bytes((photographs / "c.png").read_bytes())  # its close-up, say
    window = show(photographs, language="de")
    assert window.left_out.text() == "Einige Dateien sind ausgelassen"
    assert window.left_out.toolTip().splitlines() == [
        "1 Datei ist ausgelassen: dem Namen nach Masken anderer (c_lesion.png)",
        "3 Dateien sind ausgelassen: Ergebnisse eines früheren Laufs "
        "(out/overlays/a.png, out/overlays/b.png, out/overlays/c.png)",
    ]
    window.guarded(lambda: window.open_inputs([photographs / "out"]))
    said = "kein Foto in dem, was genannt ist (3 Dateien sind ausgelassen: Ergebnisse"
    assert window.message.text().startswith(said) and window.left_out.text()
    assert window.session.opened is not None and window.file_list.count() == 3, "what is open stays"


def test_output_below_a_file(show: Open, photographs: Path) -> None:
    window = show(None, output=photographs / "a.png" / "x")
    with pytest.raises(UsageError, match=r"'.*a.png' is a file .*-o"):
        window.open_inputs([photographs])


def test_the_next_image_is_not_outlined_in_the_class_last_in_hand(
    qtbot: Any, show: Open, photographs: Path
) -> None:
    window = show(photographs)
    window.editing.add_class("ruler")
    drag(qtbot, window, (10, 10), (60, 12))
    key(qtbot, window, Qt.Key.Key_A)
    ready(qtbot, window)
    document = window.session.opened.document  # type: ignore[union-attr]
    assert document.layer("lesion").any() and not document.layer("ruler").any()
    assert window.session.label == "lesion" and list(document.layers) == ["lesion", "ruler"]
    window.editing.add_class("hair")
    window.editing.add_class("gel")
    with pytest.raises(DataError, match="'gel_hole' is no name for a class"):
        window.editing.add_class("gel_hole")  # its outlines would be taken out of those of "gel"
    window.editing.choose_class("lesion")
    before = int(lesion(window).sum())
    window.editing.choose_class("ruler")
    window.sliders.set_value("Threshold", 0.95)  # of the outline that is there
    qtbot.waitUntil(lambda: 0 < int(lesion(window).sum()) < before, timeout=60_000)
    assert not document.layer("ruler").any()
    key(qtbot, window, Qt.Key.Key_P)  # asked for, in the class in hand
    qtbot.waitUntil(lambda: document.layer("ruler").any(), timeout=60_000)
    window.editing.choose_class("gel")
    drag(qtbot, window, (10, 10), (60, 12))
    for again in (False, True):  # each class keeps number and colour, in every image and every session
        if again:
            window.close()
            window = show(photographs)
        window.file_list.setCurrentRow(2)
        ready(qtbot, window)
        numbers = ["lesion", "ruler", "gel"] if again else ["lesion", "ruler", "hair", "gel"]
        assert window.session.classes == numbers and window.session.label == "lesion"
        key(qtbot, window, Qt.Key.Key_3 if again else Qt.Key.Key_4)
        assert window.session.label == window.canvas.pen.label == "gel"  # type: ignore[union-attr]
        drag(qtbot, window, (10, 10), (60, 12))
        assert window.session.layers()[-1].colour == CLASS_COLOURS[numbers.index("gel")]
        assert window.session.layers()[-1].mask[11, 40]
        key(qtbot, window, Qt.Key.Key_Z, CTRL)


def test_what_is_pressed_in_mid_stroke_takes_the_stroke_along(
    qtbot: Any, show: Open, photographs: Path
) -> None:
    window = show(photographs)
    key(qtbot, window, Qt.Key.Key_S, CTRL)
    qtbot.mousePress(window.canvas, LEFT, pos=at(window, 10, 10))
    qtbot.mouseMove(window.canvas, at(window, 60, 12))
    key(qtbot, window, Qt.Key.Key_S, CTRL)
    saved = read_labelme((photographs / "a.json").read_bytes())
    assert draw_labels(saved, ["lesion"])[11, 40] and np.array_equal(
        draw_labels(saved, ["lesion"]), lesion(window)
    )
    qtbot.mouseMove(window.canvas, at(window, 100, 12))
    qtbot.mouseRelease(window.canvas, LEFT, pos=at(window, 100, 12))
    after_a_crash = files.open_image(window.session.entries[0])
    assert after_a_crash.recovered and lesion(window)[11, 40]
    assert np.array_equal(after_a_crash.document.layer("lesion"), lesion(window))
    qtbot.mousePress(window.canvas, LEFT, pos=at(window, 10, 300))
    qtbot.mouseMove(window.canvas, at(window, 60, 300))
    key(qtbot, window, Qt.Key.Key_A)
    saved = read_labelme((photographs / "a.json").read_bytes())
    assert draw_labels(saved, ["lesion"])[300, 40] and saved.extra["flags"] == {"approved": True}


def test_a_stroke_under_way_is_kept_when_its_image_is_left(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    for row, name in ((0, "a.json"), (1, "b.json")):
        ready(qtbot, window)
        qtbot.mousePress(window.canvas, LEFT, pos=at(window, 10, 300))
        qtbot.mouseMove(window.canvas, at(window, 60, 300))
        assert window.session.row == row and lesion(window)[300, 40]
        if row == 0:
            key(qtbot, window, Qt.Key.Key_N)
        else:
            window.close()
        saved = read_labelme((photographs / name).read_bytes())
        assert draw_labels(saved, ["lesion"])[300, 40] and not is_proposal(saved)


def test_a_polygon_under_way_is_not_lost(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    window.step(1)
    ready(qtbot, window)
    key(qtbot, window, Qt.Key.Key_S, CTRL)
    window.step(-1)
    qtbot.waitUntil(lambda: window.session.row == 0 and window.session.opened is not None, timeout=60_000)
    before = lesion(window).copy()
    assert window.canvas.pen is not None and not before[10:60, 400:].any()
    key(qtbot, window, Qt.Key.Key_G)
    for point in ((410, 15), (460, 15), (460, 50), (300, 300)):
        qtbot.mouseClick(window.canvas, LEFT, pos=at(window, *point))
    window.canvas.leaveEvent(None)  # to the panels, say: no line goes to the window's corner
    picture = window.canvas.grab().toImage()
    assert len({picture.pixel(x, x) for x in range(12)}) == 1, "there is nothing but the background"
    key(qtbot, window, Qt.Key.Key_Z, CTRL)  # the corner, not the polygon, nor what was drawn before
    for letter in (Qt.Key.Key_A, Qt.Key.Key_N, Qt.Key.Key_B):
        key(qtbot, window, letter)
        assert "a polygon is under way (Ctrl+Enter closes it" in window.message.text()
        assert window.session.row == window.file_list.currentRow() == 0 and len(window.canvas.pen.points) == 3
        assert window.menus.tools["polygon"].isChecked() and np.array_equal(lesion(window), before)
    assert "approved" not in window.file_list.item(0).text()
    key(qtbot, window, Qt.Key.Key_Return, CTRL)
    assert not window.message.text()
    assert (
        lesion(window)[25, 450]
        and not lesion(window)[45, 415]
        and lesion(window)[300, 300] == before[300, 300]
    )
    for point in ((410, 15), (460, 15), (460, 50)):
        qtbot.mouseClick(window.canvas, Qt.MouseButton.RightButton, pos=at(window, *point))
    key(qtbot, window, Qt.Key.Key_Up, CTRL)  # grow: the polygon still takes away
    qtbot.mouseClick(window.canvas, LEFT, pos=at(window, 410, 15) + QPoint(3, 3))
    assert not lesion(window)[25, 450] and not window.canvas.pen.points
    for point in ((410, 55), (460, 55), (460, 90)):
        qtbot.mouseClick(window.canvas, LEFT, pos=at(window, *point))
    window.close()
    assert draw_labels(read_labelme((photographs / "a.json").read_bytes()), ["lesion"])[65, 450]


def test_moving_the_image_twice_in_a_row_closes_no_polygon(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    before, middle = lesion(window).copy(), Qt.MouseButton.MiddleButton
    key(qtbot, window, Qt.Key.Key_G)
    for point in ((410, 15), (460, 15), (460, 50)):
        qtbot.mouseClick(window.canvas, LEFT, pos=at(window, *point))
    qtbot.mouseDClick(window.canvas, middle, pos=at(window, 200, 200))
    qtbot.mouseRelease(window.canvas, middle, pos=at(window, 200, 200))
    qtbot.mouseDClick(window.canvas, Qt.MouseButton.BackButton, pos=at(window, 200, 200))
    qtbot.mouseRelease(window.canvas, Qt.MouseButton.BackButton, pos=at(window, 200, 200))
    qtbot.keyPress(window.canvas, Qt.Key.Key_Space)
    qtbot.mouseDClick(window.canvas, LEFT, pos=at(window, 200, 200))
    qtbot.mouseRelease(window.canvas, LEFT, pos=at(window, 200, 200))
    qtbot.keyRelease(window.canvas, Qt.Key.Key_Space)
    assert window.canvas.pen is not None and len(window.canvas.pen.points) == 3
    assert np.array_equal(lesion(window), before)
    qtbot.mouseDClick(window.canvas, LEFT, pos=at(window, 410, 50))
    assert not window.canvas.pen.points and not np.array_equal(lesion(window), before)


def test_nobody_draws_what_they_do_not_see(qtbot: Any, show: Open, photographs: Path) -> None:
    """A key beside P and L hides the masks, and the brush seemed to paint nothing."""
    window = show(photographs)
    assert window.canvas.renderer is not None
    key(qtbot, window, Qt.Key.Key_O)
    assert not window.canvas.renderer.layers
    drag(qtbot, window, (10, 10), (60, 12))
    assert window.canvas.renderer.layers and window.menus.masks.isChecked()
    window.class_list.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert not window.canvas.renderer.layers[0].visible
    key(qtbot, window, Qt.Key.Key_Up, CTRL)
    assert window.canvas.renderer.layers[0].visible
    assert window.class_list.item(0).checkState() == Qt.CheckState.Checked
    key(qtbot, window, Qt.Key.Key_O)
    key(qtbot, window, Qt.Key.Key_A)
    ready(qtbot, window)
    assert window.session.row == 1 and window.canvas.renderer.layers, "nor approves it"


def test_the_space_bar_moves_the_image_after_a_class_was_clicked(
    qtbot: Any, show: Open, photographs: Path
) -> None:
    window = show(photographs)
    window.activateWindow()
    window.editing.add_class("gel")
    before, classes = lesion(window).copy(), window.class_list
    there = classes.visualItemRect(classes.item(0)).center()
    qtbot.mouseMove(classes.viewport(), there)
    qtbot.mouseClick(classes.viewport(), LEFT, pos=there)
    qtbot.mouseMove(window.canvas, at(window, 100, 100))
    qtbot.waitUntil(lambda: QApplication.focusWidget() is window.canvas)
    qtbot.keyPress(QApplication.focusWidget(), Qt.Key.Key_Space)
    drag(qtbot, window, (100, 100), (150, 120))
    qtbot.keyRelease(QApplication.focusWidget(), Qt.Key.Key_Space)
    assert not window.session.hidden and np.array_equal(lesion(window), before)


def test_a_key_that_is_held_down_approves_one_image(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    approve = window.findChild(QAction, "Approve and go on")
    assert approve is not None and not approve.autoRepeat()


def test_switching_images_drops_stale_work(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    for row in (1, 2, 0, 2, 1):
        window.file_list.setCurrentRow(row)
    ready(qtbot, window)
    assert window.session.row == 1 and window.session.opened is not None
    assert window.session.opened.entry.name == "b.png"
    assert not (photographs / "c.json").exists(), "nothing was kept of images that were only passed by"


def test_classes_and_second_reader(qtbot: Any, show: Open, photographs: Path, tmp_path: Path) -> None:
    first = show(photographs)
    first.editing.add_class("naevus")
    drag(qtbot, first, (10, 10), (60, 12))
    first.close()
    other = tmp_path / "other"
    other.mkdir()
    content = json.loads((photographs / "a.json").read_bytes())
    assert {shape["label"] for shape in content["shapes"]} == {"lesion", "naevus"}
    content["shapes"] = [shape for shape in content["shapes"] if shape["label"] == "lesion"]
    (other / "a.json").write_text(json.dumps(content))
    window = show(photographs, second=other)
    qtbot.waitUntil(lambda: window.differences.rowCount() == 2, timeout=60_000)
    cells = [[window.differences.item(r, c).text() for c in (0, 1)] for r in range(2)]
    assert cells == [["naevus", "0.000"], ["lesion", "1.000"]]
    assert window.other.isVisible() and window.other.renderer.layers[1].mask.any()  # type: ignore[union-attr]
    for width in (1280, 1600):
        window.resize(width, 900)
        qtbot.waitUntil(lambda: abs(window.canvas.width() - window.other.width()) <= 1)
        there = window.other.renderer
        assert there is not None and there.left <= 0.5, "the whole image is in the right pane too"
        assert there.left + there.frame.shape[1] / there.scale >= SIZE[1] - 0.5
    path = tmp_path / "mask.png"
    files.export_mask(window.session.opened.document, "naevus", path)  # type: ignore[union-attr]
    assert load_mask(path, size=SIZE).any()


def test_a_broken_file_is_one_line(qtbot: Any, show: Open, photographs: Path) -> None:
    (photographs / "a.png").write_bytes(b"no image")
    (photographs / "b.json").write_text("{}")
    window = show(None)
    window.open_inputs([photographs])
    qtbot.waitUntil(lambda: "a.png" in window.message.text() and "Loading" not in window.message.text())
    assert "cannot be read" in window.file_list.item(1).text()
    window.file_list.setCurrentRow(1)
    qtbot.waitUntil(lambda: "no list 'shapes' (move it away, or name" in window.message.text())
    (photographs / "a.png").write_bytes((photographs / "c.png").read_bytes())  # copied again
    there = window.file_list.visualItemRect(window.file_list.item(0)).center()
    qtbot.mouseClick(window.file_list.viewport(), LEFT, pos=there)
    ready(qtbot, window)
    assert window.session.row == 0 and "proposed" in window.file_list.item(0).text()
    window.file_list.setCurrentRow(2)
    ready(qtbot, window)


def test_a_defect_is_one_line_and_the_next_image_opens(
    qtbot: Any,
    show: Open,
    photographs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    window = show(photographs)
    with monkeypatch.context() as broken:
        broken.setattr(files, "open_image", lambda entry: 1 // 0)
        window.step(1)
        qtbot.waitUntil(lambda: "unexpected ZeroDivisionError" in window.message.text())
    assert "in <lambda>" in capfd.readouterr().err, "the place in the code"
    window.step(1)
    ready(qtbot, window)


def test_nothing_of_the_image_before_stays_with_a_broken_one(
    qtbot: Any, show: Open, photographs: Path, tmp_path: Path
) -> None:
    (photographs / "b.png").write_bytes(b"no image")
    window = show(photographs)
    drag(qtbot, window, (10, 10), (60, 12))
    qtbot.waitUntil(lambda: window.readings.rowCount() > 0, timeout=60_000)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image found"):
        window.open_inputs([tmp_path / "empty"])
    assert window.windowTitle() == "a.png - dermseg" and lesion(window).any(), "what was open stays"
    window.step(1)
    qtbot.waitUntil(lambda: "b.png" in window.message.text() and "Loading" not in window.message.text())
    assert window.windowTitle() == "dermseg"
    assert window.readings.rowCount() == window.class_list.count() == 0
    undo = window.findChild(QAction, "Undo")
    assert undo is not None and not undo.isEnabled()
    window.step(1)
    ready(qtbot, window)
    assert "cannot be read" in window.file_list.item(1).text()


def test_names_too_long_for_what_lies_beside_them(qtbot: Any, show: Open, photographs: Path) -> None:
    """Of 255 bytes the annotation has no place; of 250 it has one, and the journal another name."""
    (photographs / "a.png").rename(photographs / f"{'x' * 246}.png")
    (photographs / "b.png").rename(photographs / f"{'x' * 251}.png")
    window = show(None)
    window.open_inputs([photographs])
    ready(qtbot, window)  # c.png
    window.step(1)
    ready(qtbot, window)
    drag(qtbot, window, (100, 100), (140, 120))
    opened = window.session.opened
    assert opened is not None and opened.journal.problem is None and opened.journal.path.is_file()
    window.step(1)
    qtbot.waitUntil(lambda: "File name too long" in window.message.text(), timeout=60_000)
    assert window.file_list.textElideMode() == Qt.TextElideMode.ElideMiddle
    assert window.file_list.item(1).toolTip() == f"{'x' * 246}.png"
    window.file_list.doItemsLayout()  # whichever comes first
    assert window.file_list.horizontalScrollBar().maximum() == 0
    rect = window.file_list.visualItemRect(window.file_list.item(0))
    assert rect.height() >= 2 * window.file_list.fontMetrics().lineSpacing()
    window.say("short")
    usual = window.message.height()
    window.say("what to do " * 80)
    qtbot.waitUntil(lambda: window.statusBar().height() > 2 * usual)
    assert window.message.height() >= window.message.heightForWidth(window.message.width())
    window.say("short")
    assert window.message.height() == usual


def test_work_of_many_days_goes_on_where_it_stopped(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    drag(qtbot, window, (100, 100), (140, 120))
    assert window.session.opened is not None
    journal = window.session.opened.journal.path
    left = journal.read_bytes()
    window.approve()
    ready(qtbot, window)
    window.close()
    again = show(photographs)  # b.png has a proposal only
    assert again.session.row == 1
    for row in (2, 1):  # a.png is approved
        key(qtbot, again, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
        ready(qtbot, again)
        assert again.session.row == again.file_list.currentRow() == row
    drag(qtbot, again, (100, 100), (140, 120))
    again.close()
    last = show(photographs)
    assert last.session.row == 1, "corrected, and not approved"
    last.approve()
    ready(qtbot, last)
    key(qtbot, last, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    assert last.session.row == 2 and last.message.text() == "No other image is left to approve"
    last.close()
    (photographs / "a.json").unlink()
    journal.write_bytes(left)  # as a crash leaves it
    assert show(photographs).session.row == 0


def test_a_proposal_that_changes_nothing_is_no_unsaved_work(
    qtbot: Any, show: Open, photographs: Path
) -> None:
    window = show(photographs)
    key(qtbot, window, Qt.Key.Key_A)
    ready(qtbot, window)
    window.step(-1)
    qtbot.waitUntil(lambda: window.session.opened is not None, timeout=60_000)
    key(qtbot, window, Qt.Key.Key_P)
    qtbot.waitUntil(lambda: not window.assistant.worker.working, timeout=60_000)
    window.step(1)
    assert window.file_list.item(0).text().endswith("approved")
    assert not journal_path(photographs / "a.json").exists()


def test_an_exported_mask_is_a_png_by_name_too(
    qtbot: Any, show: Open, photographs: Path, tmp_path: Path
) -> None:
    window = show(photographs)

    def answer() -> None:
        dialog = QApplication.activeModalWidget()
        line = dialog.findChild(QLineEdit)
        line.setText(str(tmp_path / "mine"))
        qtbot.keyClick(line, Qt.Key.Key_Return)

    QTimer.singleShot(200, answer)
    window.ask.mask()
    assert np.array_equal(load_mask(tmp_path / "mine.png"), lesion(window))
    assert "mine.png" in window.message.text()


def test_an_export_of_hundreds_of_images_stops_nobody(
    qtbot: Any, show: Open, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 corrected photographs of 12 megapixels stopped the window for 10 s, without a word."""
    window, path, go = show(photographs), tmp_path / "all.json", threading.Event()
    monkeypatch.setattr(Questions, "_file", lambda *_: path)
    write = files.export_coco
    monkeypatch.setattr(files, "export_coco", lambda *given: (go.wait(30), write(*given))[1])
    window.ask.coco()
    assert window.message.text() == "Writing all.json"
    drag(qtbot, window, (10, 10), (60, 12))
    window.save()
    go.set()
    qtbot.waitUntil(lambda: window.message.text() == "Images written: 1", timeout=60_000)
    assert json.loads(path.read_bytes())["images"][0]["file_name"] == "a.png"
    path.unlink()
    go.clear()
    window.ask.coco()
    QTimer.singleShot(0, window.close)
    stop = window.ask.worker.stop
    monkeypatch.setattr(
        window.ask.worker, "stop", lambda: (go.set(), stop()) if not window.isVisible() else 0
    )
    qtbot.waitUntil(path.is_file, timeout=60_000)
    worker, done = Worker(), threading.Event()
    worker.submit(done.set, lambda _: None)
    worker.stop()  # before it has begun
    assert done.is_set()


@pytest.fixture
def film(tmp_path: Path) -> str:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
    for _ in range(12):
        writer.write(cv2.cvtColor(synthesize(3, (480, 640))[0], cv2.COLOR_RGB2BGR))
    writer.release()
    return str(path)


def test_live_picture(qtbot: Any, show: Open, film: str) -> None:
    window = show(None)
    window.toggle_camera(film)
    qtbot.waitUntil(lambda: "Live" in window.message.text(), timeout=60_000)
    assert window.canvas.renderer is not None and window.canvas.renderer.layers[0].mask.any()
    qtbot.waitUntil(lambda: window.message.text().endswith("gives no more pictures"), timeout=60_000)
    window.toggle_camera()
    assert window.canvas.renderer is None


def test_after_the_camera_the_work_goes_on_where_it_was(
    qtbot: Any, show: Open, photographs: Path, film: str
) -> None:
    """Ctrl+L is near to L, and the next image was the first of hundreds."""
    window = show(photographs)
    window.step(1)
    ready(qtbot, window)
    window.toggle_camera(film)
    assert window.file_list.currentRow() == -1 and window.menus.camera.isChecked()
    window.toggle_camera()
    ready(qtbot, window)
    assert window.session.row == window.file_list.currentRow() == 1 and not window.menus.camera.isChecked()
    window.toggle_camera(film)
    window.file_list.setCurrentRow(2)  # chosen: that one
    ready(qtbot, window)
    assert window.session.row == 2 and not window.live.on and not window.menus.camera.isChecked()
    window.toggle_camera("no film")
    qtbot.waitUntil(lambda: window.message.text() == "camera no film cannot be opened", timeout=60_000)
    assert not window.live.on and window.file_list.currentRow() == 2
    window.step(-1)
    ready(qtbot, window)
    assert window.session.row == 1


def test_what_is_dropped_is_opened_and_never_moved(show: Open, photographs: Path, qtbot: Any) -> None:
    window = show(None)
    data = QMimeData()

    def drop(actions: Qt.DropAction) -> list[bool]:
        taken = []
        for kind, at in ((QDragEnterEvent, QPoint(5, 5)), (QDropEvent, QPointF(5, 5))):
            event = kind(at, actions, data, LEFT, Qt.KeyboardModifier.NoModifier)
            event.ignore()
            QApplication.sendEvent(window, event)
            taken.append(event.isAccepted() and event.dropAction() == Qt.DropAction.CopyAction)
        return taken

    move, both = Qt.DropAction.MoveAction, Qt.DropAction.MoveAction | Qt.DropAction.CopyAction
    data.setText("no file")
    assert drop(both) == [False, False]
    data.setUrls([QUrl.fromLocalFile(str(photographs))])
    assert drop(move) == [False, False] and drop(both) == [True, True]
    qtbot.waitUntil(
        lambda: window.file_list.count() == 3 and window.session.opened is not None, timeout=60_000
    )
    assert window.image_dock.windowTitle() == "Images: 0 of 3 approved"

    def proposed() -> bool:
        opened = window.session.opened
        return opened is not None and opened.document.status == "proposed"

    qtbot.waitUntil(proposed, timeout=60_000)
    window.approve()
    assert window.image_dock.windowTitle() == "Images: 1 of 3 approved"
    qtbot.waitUntil(proposed, timeout=60_000)  # of the next image: its words would take the place of these
    data.setUrls([QUrl.fromLocalFile(str(photographs / "gone.png"))])
    drop(both)
    qtbot.waitUntil(lambda: "gone.png" in window.message.text(), timeout=60_000)


def test_german_is_complete(show: Open) -> None:
    window = show(None, language="de")
    shown = {action.objectName() for action in window.findChildren(QAction) if action.objectName()}
    assert len(shown) > 30 and not shown - set(words.GERMAN)
    assert window.menuBar().actions()[0].text() == "Datei"
    (bar,) = window.findChildren(QToolBar)
    where = QPoint(9, 9)
    asked = QContextMenuEvent(QContextMenuEvent.Reason.Mouse, where, bar.mapToGlobal(where))
    QApplication.sendEvent(bar, asked)
    assert QApplication.activePopupWidget() is None, "no menu that hides the bar"
    tips = [action.toolTip() for action in bar.actions() if action.text()]
    assert tips[-1] == "Freigeben und weiter (A)" and tips[2].startswith(
        "Polygon (G): seine Ecken anklicken;"
    )
    said = [part.split(": ")[-1] for tip in tips[:-2] for part in tip.splitlines()]
    assert len(said) == 13 and not set(said) - set(words.GERMAN.values())
    assert window.message.text().startswith("Bilder oder einen Ordner hierher ziehen"), (
        "an empty window says what to do"
    )
    reasons = {reason for reason, _ in (*WORDS.values(), *REJECT_WORDS.values())}
    assert not reasons - set(words.GERMAN)
    window.guarded(lambda: window.open_inputs([]))
    assert window.message.text().startswith("kein Bild gefunden")
    for data in (b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypqt  ", b"\0\0\0\x18ftypcrx "):
        with pytest.raises(ImageError) as caught:
            load_image(data + bytes(200))
        said = Texts("de").error(caught.value)
        assert "read" not in said and " as " not in said and "film," not in said


def test_german_numbers_and_buttons(qtbot: Any) -> None:
    mask = np.zeros((400, 400), bool)
    mask[:200, :300] = True
    rows = {language: reading_rows(measure_mask(mask), 0.5, Texts(language)) for language in ("en", "de")}
    assert [row[1] for row in rows["en"]][:3] == ["60,000 px", "37.5%", "999.1 px"]
    assert [row[1] for row in rows["de"]][:3] == ["60.000 px", "37,5\u00a0%", "999,1 px"]
    found = compare_layers({"x": mask}, {"x": mask[::-1]})
    assert disagreement_rows(found, Texts("de")) == [("x", "0,000", "60.000 px", "60.000 px")]
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    german = speak(app, "de")
    if german.isEmpty():
        pytest.skip("this Qt came without German")
    box = QMessageBox()
    qtbot.addWidget(box)
    button = box.addButton(QMessageBox.StandardButton.Cancel)
    app.removeTranslator(german)
    assert "Abbrechen" in button.text()


def test_painting_repaints_only_what_changed(qtbot: Any, show: Open, tmp_path: Path) -> None:
    image = np.full((4000, 6000, 3), 180, np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), image)
    window = show(tmp_path)
    room = window.screen().availableSize()
    fit_screen(window)  # 1280 x 820 is more than a laptop's screen has at 150 %
    assert window.width() <= room.width() and window.height() < room.height()
    full = window.canvas.renderer.frame.copy()  # type: ignore[union-attr]
    drag(qtbot, window, (1000, 1000), (1400, 1100))
    frame = window.canvas.renderer.frame  # type: ignore[union-attr]
    rows, columns = np.nonzero((frame != full).any(2))
    assert len(rows) > 0 and np.ptp(rows) < 60 and np.ptp(columns) < 120
    window.canvas.redraw()
    shown = frame.copy()
    window.canvas.refresh()
    assert np.array_equal(shown, frame), "what was drawn in parts is what is drawn as a whole"
    window.canvas.widen(10)
    assert "1,200" in [label.text() for label in window.sliders.findChildren(QLabel)], "wider than the slider"


def test_two_windows_never_work_on_one_image(qtbot: Any, show: Open, photographs: Path) -> None:
    first = show(photographs)
    second = Window(Session(), Texts("en"))
    qtbot.addWidget(second)
    second.guarded(lambda: second.open_inputs([photographs]))
    assert "another window" in second.message.text() and second.session.opened is None
    second.step(1)
    ready(qtbot, second)
    first.step(1)
    assert "another window" in first.message.text()
    second.close()
    first.guarded(lambda: first.open_row(1))
    ready(qtbot, first)
    first.close()
    assert not list(photographs.glob(".*")), "no lock and no journal is left"


def test_what_another_program_wrote_is_not_lost_without_a_question(
    qtbot: Any, show: Open, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = show(photographs)
    drag(qtbot, window, (10, 10), (60, 12))
    window.save()
    drag(qtbot, window, (10, 300), (60, 300))
    file = photographs / "a.json"
    theirs = json.dumps({**json.loads(file.read_text()), "note": "theirs"})
    file.write_text(theirs)
    monkeypatch.setattr(Questions, "may_replace", lambda *_: False)
    window.guarded(window.save)
    assert "another program" in window.message.text() and file.read_text() == theirs
    window.step(1)
    qtbot.wait(20)
    assert window.session.row == window.file_list.currentRow() == 0, "not left"
    monkeypatch.setattr(Questions, "may_replace", lambda *_: True)
    window.save()
    assert "theirs" not in file.read_text() and not window.session.opened.document.changed  # type: ignore[union-attr]
    # a proposal gives way without a question
    window.step(1)
    ready(qtbot, window)
    (photographs / "b.json").write_text(theirs)
    window.step(1)
    ready(qtbot, window)
    assert (photographs / "b.json").read_text() == theirs and window.session.row == 2


def test_a_folder_that_is_gone_is_not_made_again(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    drag(qtbot, window, (10, 10), (60, 12))
    gone = photographs.rename(photographs.with_name("unplugged"))
    drag(qtbot, window, (10, 300), (60, 300))
    window.step(1)
    assert not photographs.exists() and window.session.row == 0
    assert "No such file or directory" in window.message.text()
    gone.rename(photographs)
    drag(qtbot, window, (200, 10), (260, 10))
    window.save()
    saved = draw_labels(read_labelme((photographs / "a.json").read_bytes()), ["lesion"])
    assert np.array_equal(saved, lesion(window)) and saved[300, 30]


@pytest.mark.parametrize("beside", [True, False])
def test_nor_when_the_next_image_opens(
    qtbot: Any, show: Open, photographs: Path, tmp_path: Path, beside: bool
) -> None:
    out = photographs if beside else tmp_path / "anno"
    window = show(photographs, output=None if beside else out)
    window.save()
    out.rename(tmp_path / "unplugged")
    window.step(1)
    qtbot.waitUntil(lambda: "No such file" in window.message.text() or "exist" in window.message.text())
    assert not out.exists()


def test_two_images_of_one_stem_never_share_an_outline(qtbot: Any, show: Open, photographs: Path) -> None:
    Image.open(photographs / "c.png").save(photographs / "a.bmp")  # before a.png in the list
    window = show(photographs)
    drag(qtbot, window, (10, 10), (60, 12))
    row = [entry.name for entry in window.session.entries].index("a.png")
    window.file_list.setCurrentRow(row)
    qtbot.waitUntil(lambda: "belongs to 'a.bmp'" in window.message.text(), timeout=30_000)
    assert window.session.opened is None
    (photographs / "a.bmp").unlink()  # converted: the annotation goes with the new file
    window.guarded(lambda: window.open_row(row))
    ready(qtbot, window)
    assert lesion(window)[11, 30]


def test_a_proposal_is_the_mask_that_segment_writes(qtbot: Any, show: Open, tmp_path: Path) -> None:
    Image.fromarray(synthesize(9, (1500, 2000))[0]).save(tmp_path / "a.jpg")  # decoded reduced by `segment`
    window = show(tmp_path)
    assert np.array_equal(lesion(window), load_model().segment(tmp_path / "a.jpg").mask)


def test_another_threshold_is_judged_anew(qtbot: Any, show: Open, tmp_path: Path) -> None:
    Image.fromarray(synthesize(9, (450, 600))[0]).save(tmp_path / "a.jpg")
    window, model = show(tmp_path), load_model()
    wide = model.segment(tmp_path / "a.jpg", threshold=0.001)
    assert wide.verdict is not None and wide.touches_border
    window.assistant.threshold = 0.001
    window.assistant.propose()
    qtbot.waitUntil(lambda: int(lesion(window).sum()) == wide.area_px, timeout=60_000)
    ready(qtbot, window)
    assert window.session.result is not None and window.session.result.verdict == wide.verdict
    assert wide.verdict.findings[0].reason in window.message.text()
    assert window.session.result.confidence == wide.confidence


def test_clicks_beside_the_image_do_nothing(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    before = lesion(window).copy()
    said = window.message.text()
    for letter in (Qt.Key.Key_F, Qt.Key.Key_K):
        key(qtbot, window, letter)
        qtbot.mouseClick(window.canvas, LEFT, pos=at(window, -20, -20))
    key(qtbot, window, Qt.Key.Key_M)
    drag(qtbot, window, (-60, -60), (-10, -10))
    assert np.array_equal(lesion(window), before) and window.message.text() == said


def test_the_outline_is_as_wide_on_a_fine_screen(qtbot: Any, show: Open, photographs: Path) -> None:
    window = show(photographs)
    renderer = window.canvas.renderer
    assert renderer is not None

    def painted() -> int:
        window.canvas.redraw()
        return int((renderer.frame[..., :3] == np.array(CLASS_COLOURS[0][::-1])).all(2).sum())

    one = painted()
    renderer.line = 2
    assert 1.7 * one < painted() < 2.3 * one
    whole = renderer.frame.copy()
    window.canvas.refresh([(100, 100, 50, 50)])
    assert np.array_equal(renderer.frame, whole)
    renderer.layers = ()
    window.canvas.redraw()
    bare, paint = renderer.frame[..., :3].astype(float), np.array(CLASS_COLOURS[0][::-1])
    mixed = bare * (1 - renderer.opacity) + paint * renderer.opacity
    filled = (whole[..., :3] != bare).any(2) & (whole[..., :3] != paint).any(2)
    assert filled.sum() > 1000 and np.abs(whole[..., :3] - mixed)[filled].max() <= 1


def test_the_picture_fills_the_window_on_another_screen(
    qtbot: Any, show: Open, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved from a laptop's fine screen to a coarse one, or back, it was cut off, or lay in a corner."""
    window = show(photographs)
    renderer = window.canvas.renderer
    assert renderer is not None
    for ratio in (2.0, 1.0):
        monkeypatch.setattr(View, "devicePixelRatioF", lambda self, ratio=ratio: ratio)
        QApplication.sendEvent(window.canvas, QEvent(QEvent.Type.DevicePixelRatioChange))  # as Qt does then
        height, width = renderer.frame.shape[:2]
        assert (width, height) == (ratio * window.canvas.width(), ratio * window.canvas.height())
        assert min(width / SIZE[1], height / SIZE[0]) == renderer.scale, "all of the image is shown"


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_kill_minus_nine_and_recover(qtbot: Any, show: Open, photographs: Path) -> None:
    code = """
import sys
from PySide6.QtCore import QPoint, Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from dermseg.apps.desktop.session import Session
from dermseg.apps.desktop.texts import Texts
from dermseg.apps.desktop.theme import CLASS_COLOURS
from dermseg.apps.desktop.window import Window
app = QApplication([])
window = Window(Session(), Texts("en"))
window.show()
window.open_inputs([sys.argv[1]])
def paint():
    if window.session.opened is None or window.session.opened.document.status == "new":
        return QTimer.singleShot(50, paint)
    x, y = window.canvas.renderer.to_screen(20, 20)
    QTest.mousePress(window.canvas, Qt.MouseButton.LeftButton, pos=QPoint(int(x), int(y)))
    QTest.mouseMove(window.canvas, QPoint(int(x) + 60, int(y)))
    QTest.mouseRelease(window.canvas, Qt.MouseButton.LeftButton, pos=QPoint(int(x) + 60, int(y)))
    print(int(window.session.opened.document.layer("lesion").sum()), flush=True)
paint()
app.exec()
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(photographs)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        painted = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
    assert not (photographs / "a.json").exists() and journal_path(photographs / "a.json").exists()
    window = show(photographs)
    assert int(lesion(window).sum()) == painted
    assert "brought back" in window.message.text() and "unsaved" in window.file_list.item(0).text()
    key(qtbot, window, Qt.Key.Key_Z, CTRL)
    assert 0 < lesion(window).sum() < painted


@pytest.mark.parametrize(
    ("option", "named", "code"),
    [("--model", "nowhere", 2), ("--model", "photos", 1), ("--second", "nowhere", 2)],
)
def test_a_model_or_reader_that_is_not_there_ends_before_the_window(
    monkeypatch: pytest.MonkeyPatch, photographs: Path, option: str, named: str, code: int
) -> None:
    monkeypatch.setattr("dermseg.apps.desktop.app.run", lambda *_, **__: pytest.fail("a window opens"))
    chosen = photographs if named == "photos" else named
    with pytest.raises(SystemExit) as end:
        main(["desktop", str(photographs), option, str(chosen)])
    assert end.value.code == code


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11 is Linux")
def test_a_missing_library_of_the_system_is_said_before_qt_gives_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "platforms").mkdir()
    (tmp_path / "platforms" / "libqxcb.so").write_bytes(b"no library")
    monkeypatch.setattr("PySide6.QtCore.QLibraryInfo.path", lambda *_: str(tmp_path))
    monkeypatch.setattr("dermseg.apps.desktop.app.run", lambda *_, **__: pytest.fail("a window opens"))
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    with pytest.raises(SystemExit) as end:
        main(["desktop"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "Qt cannot open a window: " in said and "libxcb-icccm4" in said


def test_without_the_extra_one_line_says_what_is_missing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['PySide6'] = None; sys.modules['PySide6.QtCore'] = None\n"
        "from dermseg.apps.cli.main import main; main(['desktop'])"
    )
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")  # a screen may be missing too
    env = {name: value for name, value in os.environ.items() if name not in screens}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "PySide6" in done.stderr and 'pip install "dermseg[desktop]"' in done.stderr
    assert "Traceback" not in done.stderr
