"""The window: puts picture, panels, keys, workers and the session together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import QLabel, QMainWindow, QSplitter

from dermseg.apps.desktop.assistant import Assistant
from dermseg.apps.desktop.canvas import Canvas
from dermseg.apps.desktop.drop import Drop
from dermseg.apps.desktop.editing import Editing, unclosed
from dermseg.apps.desktop.live import Live
from dermseg.apps.desktop.menus import build_menus
from dermseg.apps.desktop.panels import ClassList, FileList, Message, Sliders, Table, dock
from dermseg.apps.desktop.questions import Questions
from dermseg.apps.desktop.readout import Readout
from dermseg.apps.desktop.render import Renderer
from dermseg.apps.desktop.session import Session
from dermseg.apps.desktop.texts import Texts
from dermseg.apps.desktop.worker import Worker
from dermseg.errors import DermsegError
from dermseg.labeling.editor import files
from dermseg.labeling.editor.document import Status
from dermseg.labeling.editor.files import Opened
from dermseg.labeling.editor.pen import Pen


class Window(QMainWindow):
    """The program's window.

    Parameters
    ----------
    session
        What is worked on.
    texts
        The language.
    """

    def __init__(self, session: Session, texts: Texts) -> None:
        super().__init__()
        self.session, self.texts = session, texts
        self.setWindowTitle("dermseg")
        self.resize(1280, 820)
        self.loader = Worker(self)
        self.canvas, self.other = Canvas(), Canvas()
        self.file_list, self.class_list = FileList(texts), ClassList()
        self.sliders, self.readings, self.differences = Sliders(texts), Table(2), Table(4)
        self.message, self.left_out = Message(), QLabel()
        self.assistant, self.ask, self.live = Assistant(self), Questions(self), Live(self)
        self.editing, self.readout = Editing(self), Readout(self)
        self._workers = (self.loader, self.assistant.worker, self.readout.worker, self.ask.worker)
        self._build()
        self.menus = build_menus(self)
        self._connect()
        self._blank()
        self.say(texts("Drop images or a folder here, or open them: Ctrl+O, Ctrl+Shift+O"))

    # -- building

    def _build(self) -> None:
        t = self.texts
        self.splitter = QSplitter()
        self.splitter.addWidget(self.canvas)
        self.splitter.addWidget(self.other)
        self.other.hide()
        self.setCentralWidget(self.splitter)
        self.readings.horizontalHeader().hide()
        left, right = Qt.DockWidgetArea.LeftDockWidgetArea, Qt.DockWidgetArea.RightDockWidgetArea
        self.image_dock = dock(self, t("Images"), self.file_list, left)
        dock(self, t("Classes"), self.class_list, right)
        dock(self, t("Settings"), self.sliders, right)
        dock(self, t("Measurements"), self.readings, right)
        self.difference_dock = dock(self, t("Disagreement"), self.differences, right)
        self.difference_dock.hide()
        self.statusBar().addWidget(self.message, 1)
        self.left_out.setContentsMargins(0, 0, 24, 0)
        self.statusBar().addPermanentWidget(self.left_out)
        self.statusBar().addPermanentWidget(QLabel(t("Not a medical device")))

    def _connect(self) -> None:
        self.canvas.edited.connect(self.edited)
        for signal in (self.canvas.moved, self.other.resized):
            signal.connect(lambda: self.other.follow(self.canvas) if self.other.isVisible() else None)
        self.canvas.problem.connect(self.report)
        self.file_list.currentRowChanged.connect(lambda row: self.guarded(lambda: self.open_row(row)))
        self.file_list.itemClicked.connect(self._again)
        self.editing.connect()
        Drop(self, lambda paths: self.guarded(lambda: self.open_inputs(paths)))
        self.loader.failed.connect(self._unreadable)
        for worker in self._workers[1:]:
            worker.failed.connect(self.report)

    # -- images

    def open_inputs(self, inputs: Sequence[str | Path]) -> None:
        """Take files, folders, globs or zips, and go on where the work stopped, else with the first image."""
        entries, remarks = self.session.find(inputs)  # first: where there are none, what is open stays
        self._leave()
        self.left_out.setText(self.texts("Some files are left out") if remarks else "")
        self.left_out.setToolTip("\n".join(map(self.texts.error, remarks)))
        self.session.take(entries)
        self.file_list.show_names([entry.name for entry in self.session.entries])
        states = [self._show_status(row) for row in range(len(self.session.entries))]
        done = [row for row, state in enumerate(states) if state in ("corrected", "approved")]
        last = done[-1] if done else 0
        if states[last] == "approved":
            last = (last + 1) % len(states)
        self.file_list.setCurrentRow(states.index("unsaved") if "unsaved" in states else last)

    def open_row(self, row: int) -> None:
        """Open an image of the list. What was under way for the one before is saved or cancelled."""
        if not 0 <= row < len(self.session.entries) or (row == self.session.row and self.session.opened):
            return
        try:
            self._leave()
        except DermsegError:
            self.file_list.put_back(self.session.row)
            raise
        self.session.row = row
        entry = self.session.entries[row]
        self.session.hold(row)
        self.say(self.texts("Loading {name}", name=entry.name))

        def load() -> tuple[Opened, Renderer]:
            opened = files.open_image(entry)
            return opened, Renderer(opened.pixels)

        self.loader.submit(load, lambda found: self._opened(row, *found))

    def _opened(self, row: int, opened: Opened, renderer: Renderer) -> None:
        self.session.adopt(row, opened)
        self.sliders.set_value("Threshold", self.session.threshold(), quiet=True)
        renderer.opacity = self.sliders.value("Opacity")
        pen = Pen(opened.document, opened.pixels, self.session.label)
        pen.tool, pen.tolerance = self.editing.tool, self.sliders.value("Tolerance")
        pen.on_ask = self.assistant.ask
        self.canvas.show_image(renderer, pen)
        self.other.show_image(renderer.twin())
        self.say(self.texts("Work that a crash had cut off was brought back") if opened.recovered else "")
        self.setWindowTitle(f"{opened.entry.name} - dermseg")
        self.edited()
        self.menus.masks.setChecked(True)  # no outline is approved unseen, because those before were hidden
        self.show_layers()
        if opened.document.status == "new" and not opened.recovered:
            self.assistant.propose()

    def _again(self) -> None:
        """A click on an image that could not be opened: perhaps it can be now."""
        if self.session.opened is None and not self.loader.working:
            self.guarded(lambda: self.open_row(self.file_list.currentRow()))

    def _unreadable(self, error: Exception) -> None:
        self.session.unreadable.add(self.session.row)
        self._show_status(self.session.row)
        self.report(error)

    def _leave(self) -> None:
        """Save the open image and drop the work for it. A person's work that cannot be saved is not left."""
        self.editing.check_closed()
        self.loader.cancel()
        self.assistant.forget()
        self.readout.forget()
        self.live.stop()
        if self.canvas.pen is not None:
            self.canvas.pen.document.settle()  # a stroke under way is saved as far as it is
            self.canvas.pen.cancel()
        try:
            self.save()
        except DermsegError:
            if self.session.opened is not None:
                if self.session.opened.document.at_risk:
                    self.readout.soon()
                    raise
                self.session.opened.journal.drop()  # nothing in it that cannot be had again
        self.session.let_go()
        row, self.session.opened, self.session.row = self.session.row, None, -1
        self._blank()
        if row >= 0:
            self._show_status(row)

    def _blank(self) -> None:
        """Show nothing of the image that was open."""
        self.canvas.show_image(None)
        self.other.show_image(None)
        self.readout.clear()
        self.class_list.show_classes([], "", set())
        self.menus.undo.setEnabled(False)
        self.menus.redo.setEnabled(False)
        self.setWindowTitle("dermseg")

    def step(self, by: int) -> None:
        """Go to another image of the list."""
        row = self.file_list.currentRow() + by
        if 0 <= row < self.file_list.count():
            self.file_list.setCurrentRow(row)

    def step_to_unapproved(self) -> None:
        """Go to the next image that is not approved, behind the last one from the first."""
        count, at = self.file_list.count(), self.file_list.currentRow()
        others = ((at + by) % count for by in range(1, count))
        row = next((row for row in others if row not in self.file_list.approved), None)
        if row is None:
            self.say(self.texts("No other image is left to approve"))
        else:
            self.file_list.setCurrentRow(row)

    def save(self) -> None:
        """Write the open image's annotation."""
        opened = self.session.opened
        if opened is None:
            return
        try:
            saved = self.session.save()
        except files.ChangedError as error:
            if not (opened.document.at_risk and self.ask.may_replace(error)):
                raise
            saved = self.session.save(over=True)
        if saved:
            if opened.document.status != "new":
                self.say(self.texts("Saved: {name}", name=opened.entry.annotation.name))
            self._show_status(self.session.row)

    def approve(self) -> None:
        """The outline is good: say so, save, next image."""
        opened = self.session.opened
        if opened is None:
            return
        if opened.document.status == "new" and self.assistant.worker.working:
            # Nothing is there to be approved yet: it would be filed as an image without a lesion.
            self.say(self.texts("The model looks at the image"))
            return
        self.editing.check_closed()
        opened.document.settle()  # a stroke that ends later would make it corrected
        opened.document.set_status("approved")
        self.edited()
        self.save()
        self.step(1)

    def _show_status(self, row: int) -> str | None:
        """Show how far an image is, and give it; ``unsaved`` before all else."""
        entry = self.session.entries[row]
        opened = self.session.opened
        status: Status | None
        if opened is not None and row == self.session.row:
            status, unsaved = opened.document.status, opened.document.changed
        else:
            (status, classes), unsaved = files.look(entry), entry.unsaved
            self.session.learn_classes(classes)
            if row in self.session.unreadable:
                status = None
        self.file_list.show_status(row, entry.name, status, unsaved)
        done, total = len(self.file_list.approved), len(self.session.entries)
        self.image_dock.setWindowTitle(
            self.texts("Images: {done} of {total} approved", done=done, total=total)
        )
        return "unsaved" if unsaved else status

    # -- the camera

    def toggle_camera(self, source: int | str = 0) -> None:
        """Start the live picture; or stop it, and go on with the image that was open before."""
        self.menus.camera.setChecked(False)  # that is how it stays if the open image cannot be left
        if self.live.on:
            self.live.stop()
            self.file_list.setCurrentRow(self.live.before)
            return
        self._leave()
        self.live.start(source)
        self.menus.camera.setChecked(True)

    # -- what is shown of the open image

    def edited(self) -> None:
        """Show what follows from a change: what can be undone, the status, and soon the measurements."""
        opened = self.session.opened
        if opened is None:
            return
        busy = self.canvas.pen is not None and self.canvas.pen.busy
        if not busy and self.message.text() == self.texts.error(unclosed()):
            self.say("")  # closed or dropped, it is under way no more
        self.menus.undo.setEnabled(opened.document.can_undo or busy)
        self.menus.redo.setEnabled(opened.document.can_redo)
        self._show_status(self.session.row)
        if opened.journal.problem is not None:
            self.report(opened.journal.problem)
        if self.canvas.pen is not None:
            self.sliders.set_value("Width", self.canvas.pen.radius * 2, quiet=True)
        self.readout.soon()

    def show_layers(self) -> None:
        """Show the layers as they are, and the list of classes."""
        opened = self.session.opened
        if opened is None:
            return
        self.show_masks()
        self.class_list.show_classes(self.session.classes, self.session.label, self.session.hidden)

    def show_masks(self) -> None:
        """Show the layers as they are, unless masks are off."""
        layers = self.session.layers()
        self.canvas.set_layers(layers if self.menus.masks.isChecked() else ())

    # -- the rest

    def say(self, text: str) -> None:
        """One line at the bottom."""
        self.message.setText(text)

    def report(self, error: Exception | str) -> None:
        """An error as one line at the bottom."""
        self.say(self.texts.error(error))

    def guarded(self, do: Callable[[], object]) -> None:
        """An error is a line at the bottom, never the end of the program."""
        try:
            do()
        except DermsegError as error:
            self.report(error)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        """Save and end the threads. If saving fails the journal keeps the work; if that failed too, ask."""
        if self.canvas.pen is not None and self.canvas.pen.unclosed:
            self.canvas.close_shape()  # kept, as a stroke under way is
        try:
            self._leave()
        except DermsegError as error:
            self.report(error)
            opened = self.session.opened
            if opened is not None and opened.journal.lost:
                if not self.ask.may_drop(opened.entry.name, error):
                    event.ignore()
                    return
                self.session.opened = None
        self.session.let_go()
        self.hide()  # an export under way is finished first
        for worker in self._workers:
            worker.stop()
        event.accept()
