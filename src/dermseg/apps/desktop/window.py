"""The window: puts picture, panels, keys, workers and the session together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import (
    QDockWidget,
    QLabel,
    QListWidgetItem,
    QMainWindow,
    QSplitter,
    QWidget,
)

from dermseg.apps.desktop.assistant import Assistant
from dermseg.apps.desktop.canvas import Canvas
from dermseg.apps.desktop.live import Live
from dermseg.apps.desktop.menus import build_menus
from dermseg.apps.desktop.panels import (
    ClassList,
    FileList,
    Sliders,
    Table,
    disagreement_rows,
    reading_rows,
    stack,
)
from dermseg.apps.desktop.questions import Questions
from dermseg.apps.desktop.render import Renderer
from dermseg.apps.desktop.session import Session
from dermseg.apps.desktop.texts import Texts
from dermseg.apps.desktop.worker import Worker
from dermseg.errors import DermsegError
from dermseg.labeling.editor import files
from dermseg.labeling.editor.document import PROPOSE, Box, Document, Status
from dermseg.labeling.editor.files import Opened
from dermseg.labeling.editor.pen import Pen, Tool
from dermseg.measure.geometry import Reading, measure_mask

_PAUSE_MS = 250  # after the last stroke, before measuring


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
        self.loader, self.measurer = Worker(self), Worker(self)
        self.canvas, self.other = Canvas(), Canvas()
        self.file_list, self.class_list = FileList(texts), ClassList()
        self.sliders, self.readings, self.differences = Sliders(texts), Table(2), Table(4)
        self.message = QLabel()
        self.message.setTextFormat(Qt.TextFormat.PlainText)  # names of files are no markup
        self.message.setWordWrap(True)  # the end of an error says what to do
        self.message.setFixedHeight(2 * self.message.fontMetrics().lineSpacing())
        self._tool: Tool = "brush"
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE_MS)
        self.assistant, self.ask, self.live = Assistant(self), Questions(self), Live(self)
        self._workers = (self.loader, self.assistant.worker, self.measurer)
        self._build()
        self._actions = build_menus(self)
        self._connect()
        self._blank()

    # -- building

    def _build(self) -> None:
        t = self.texts
        self._splitter = QSplitter()
        self._splitter.addWidget(self.canvas)
        self._splitter.addWidget(self.other)
        self.other.hide()
        self.setCentralWidget(self._splitter)
        self.readings.horizontalHeader().hide()
        self.differences.setHorizontalHeaderLabels([t("Class"), "Dice", t("Only here"), t("Only there")])
        left, right = Qt.DockWidgetArea.LeftDockWidgetArea, Qt.DockWidgetArea.RightDockWidgetArea
        self._dock(t("Images"), self.file_list, left)
        self._dock(t("Classes"), self.class_list, right)
        self._dock(t("Settings"), stack(self.sliders), right)
        self._dock(t("Measurements"), self.readings, right)
        self._difference_dock = self._dock(t("Disagreement"), self.differences, right)
        self._difference_dock.hide()
        self.sliders.set_value("Opacity", 0.2, quiet=True)
        self.sliders.set_value("Threshold", 0.5, quiet=True)
        self.sliders.set_value("Tolerance", 12, quiet=True)
        self.statusBar().addWidget(self.message, 1)
        self.statusBar().addPermanentWidget(QLabel(t("Not a medical device")))

    def _dock(self, title: str, content: QWidget, area: Qt.DockWidgetArea) -> QDockWidget:
        dock = QDockWidget(title)
        dock.setFeatures(QDockWidget.DockWidgetFeature.DockWidgetMovable)
        dock.setWidget(content)
        self.addDockWidget(area, dock)
        return dock

    def _connect(self) -> None:
        self.canvas.edited.connect(self.edited)
        for signal in (self.canvas.moved, self.other.resized):
            signal.connect(lambda: self.other.follow(self.canvas) if self.other.isVisible() else None)
        self.canvas.problem.connect(self.report)
        self.file_list.currentRowChanged.connect(lambda row: self.guarded(lambda: self.open_row(row)))
        self.class_list.currentItemChanged.connect(self._class_chosen)
        self.class_list.itemChanged.connect(self._class_ticked)
        self.sliders.changed.connect(self._slid)
        self._pause.timeout.connect(self._measure)
        self.loader.failed.connect(self._unreadable)
        for worker in (self.assistant.worker, self.measurer):
            worker.failed.connect(self.report)

    # -- images

    def open_inputs(self, inputs: Sequence[str | Path]) -> None:
        """Take files, folders, globs or zips, and open the first image."""
        entries = self.session.find(inputs)  # first: where there are none, what is open stays
        self._leave()
        self.session.take(entries)
        self.file_list.show_names([entry.name for entry in self.session.entries])
        for row in range(len(self.session.entries)):
            self._show_status(row)
        self.file_list.setCurrentRow(0)

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
        renderer.opacity = self.sliders.value("Opacity")
        pen = Pen(opened.document, opened.pixels, self.session.label)
        pen.tool, pen.tolerance, pen.on_ask = self._tool, self.sliders.value("Tolerance"), self.assistant.ask
        self.canvas.show_image(renderer, pen)
        self.other.show_image(_twin(renderer))
        self.say(self.texts("Work that a crash had cut off was brought back") if opened.recovered else "")
        self.setWindowTitle(f"{opened.entry.name} - dermseg")
        self.edited()
        self.show_layers()
        if opened.document.status == "new" and not opened.recovered:
            self.assistant.propose()

    def _unreadable(self, error: Exception) -> None:
        self.session.unreadable.add(self.session.row)
        self._show_status(self.session.row)
        self.report(error)

    def _leave(self) -> None:
        """Save the open image and drop the work for it. A person's work that cannot be saved is not left."""
        self.loader.cancel()
        self.assistant.forget()
        self.measurer.cancel()
        self._pause.stop()
        if self.live.on:
            self.toggle_camera()
        if self.canvas.pen is not None:
            self.canvas.pen.cancel()
        try:
            self.save()
        except DermsegError:
            if self.session.opened is not None:
                if self.session.opened.document.at_risk:
                    self._pause.start()
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
        self.readings.show_rows([])
        self.differences.show_rows([])
        self.class_list.show_classes([], "", set())
        self._actions.undo.setEnabled(False)
        self._actions.redo.setEnabled(False)
        self.setWindowTitle("dermseg")

    def step(self, by: int) -> None:
        """Go to another image of the list."""
        row = self.file_list.currentRow() + by
        if 0 <= row < self.file_list.count():
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
            self.say(self.texts("Saved: {name}", name=opened.entry.annotation.name))
            self._show_status(self.session.row)

    def approve(self) -> None:
        """The outline is good: say so, save, next image."""
        if self.session.opened is not None:
            self.session.opened.document.set_status("approved")
            self.edited()
            self.save()
            self.step(1)

    def _show_status(self, row: int) -> None:
        entry = self.session.entries[row]
        opened = self.session.opened
        status: Status | None
        if opened is not None and row == self.session.row:
            status, unsaved = opened.document.status, opened.document.changed
        else:
            status, unsaved = files.file_status(entry), entry.unsaved
            if row in self.session.unreadable:
                status = None
        self.file_list.show_status(row, entry.name, status, unsaved)

    # -- the camera

    def toggle_camera(self, source: int | str = 0) -> None:
        """Start or stop the live picture."""
        self._actions.camera.setChecked(False)  # that is how it stays if the open image cannot be left
        if self.live.on:
            self.live.stop()
            return
        self._leave()
        self.file_list.setCurrentRow(-1)
        self.live.start(source)
        self._actions.camera.setChecked(True)

    # -- editing

    def choose_tool(self, tool: Tool) -> None:
        """Take another tool."""
        self._tool = tool
        self._actions.tools[tool].setChecked(True)
        if self.canvas.pen is not None:
            self.canvas.refresh(self.canvas.pen.choose(tool))
            self.canvas.update()

    def grow(self, direction: int) -> None:
        """Move the class's outline by one pixel of the screen, at least one of the image."""
        pen, renderer = self.canvas.pen, self.canvas.renderer
        if pen is not None and renderer is not None:
            pen.label = self.session.label
            self.canvas.refresh(pen.grow(direction * max(1.0, 1.0 / renderer.scale)))
            self.edited()

    def undo(self) -> None:
        """Take back the last step."""
        self._turn(lambda document: document.undo())

    def redo(self) -> None:
        """Do again what was taken back."""
        self._turn(lambda document: document.redo())

    def _turn(self, turn: Callable[[Document], list[Box]]) -> None:
        if self.session.opened is None:
            return
        if self.canvas.pen is not None and self.canvas.pen.busy:
            self.canvas.refresh(self.canvas.pen.cancel())
            self.canvas.update()
            return
        self.canvas.refresh(turn(self.session.opened.document))
        self.edited()

    def add_class(self, label: str) -> None:
        """A new class, in hand at once."""
        label = label.strip()
        if label and self.session.opened is not None:
            self.session.opened.document.layer(label)
            self.choose_class(label)

    def choose_class(self, label: str) -> None:
        """The class that tools paint."""
        self.session.label = label
        if self.canvas.pen is not None:
            self.canvas.pen.label = label
        self.show_layers()
        self.edited()

    def choose_class_number(self, number: int) -> None:
        """The class with this number in the list."""
        labels = [] if self.session.opened is None else list(self.session.opened.document.layers)
        if number <= len(labels):
            self.choose_class(labels[number - 1])

    def next_class(self) -> None:
        """The class after the one in hand."""
        if self.session.opened is not None:
            labels = list(self.session.opened.document.layers)
            self.choose_class(labels[(labels.index(self.session.label) + 1) % len(labels)])

    def _class_chosen(self, item: QListWidgetItem | None) -> None:
        if item is not None:
            self.choose_class(str(item.data(Qt.ItemDataRole.UserRole)))

    def _class_ticked(self, item: QListWidgetItem) -> None:
        label = str(item.data(Qt.ItemDataRole.UserRole))
        if item.checkState() == Qt.CheckState.Checked:
            self.session.hidden.discard(label)
        else:
            self.session.hidden.add(label)
        self.canvas.set_layers(self.session.layers())

    def _slid(self, name: str, value: float) -> None:
        renderer, pen, opened = self.canvas.renderer, self.canvas.pen, self.session.opened
        if name == "Opacity" and renderer is not None:
            renderer.opacity = value
            self.canvas.refresh()
        elif name == "Tolerance" and pen is not None:
            pen.tolerance = value
        elif name == "Width" and pen is not None:
            self.canvas.widen(value / 2 / pen.radius)
        elif name == "Threshold":
            self.assistant.threshold = value
            # never over what a person drew or approved, today or in the file that was opened: there the
            # threshold is for the next proposal
            if opened is not None and (
                opened.document.status in ("new", "proposed") and opened.document.last_step in (None, PROPOSE)
            ):
                self.assistant.propose()

    def edited(self) -> None:
        """Show what follows from a change: what can be undone, the status, and soon the measurements."""
        opened = self.session.opened
        if opened is None:
            return
        self._actions.undo.setEnabled(opened.document.can_undo)
        self._actions.redo.setEnabled(opened.document.can_redo)
        self._show_status(self.session.row)
        if opened.journal.problem is not None:
            self.report(opened.journal.problem)
        if self.canvas.pen is not None:
            self.sliders.set_value("Width", self.canvas.pen.radius * 2, quiet=True)
        self._pause.start()

    def show_layers(self) -> None:
        """Show the layers as they are, and the list of classes."""
        opened = self.session.opened
        if opened is None:
            return
        layers = self.session.layers() if self._actions.masks.isChecked() else ()
        self.canvas.set_layers(layers)
        self.class_list.show_classes(list(opened.document.layers), self.session.label, self.session.hidden)

    # -- measurements and the second reader

    def _measure(self) -> None:
        opened = self.session.opened
        if opened is None:
            return
        mask = opened.document.layer(self.session.label).copy()
        spacing = opened.info.spacing_mm
        self.measurer.submit(lambda: measure_mask(mask, spacing), self._measured)
        self.guarded(self.compare)

    def _measured(self, reading: Reading) -> None:
        result = self.session.result
        judged = None if result is None else result.judgement
        opened = self.session.opened
        if opened is not None and opened.document.status == "new":  # nobody has outlined anything yet
            self.readings.show_rows([])
            return
        fresh = judged is not None and opened is not None and opened.document.status == "proposed"
        dice = judged.predicted_dice if fresh and judged is not None else None
        self.readings.show_rows(reading_rows(reading, dice, self.texts))

    def compare(self) -> None:
        """Show how the second reader differs, if there is one."""
        if self.session.second is None or self.session.opened is None:
            return
        found = self.session.compare()
        self._difference_dock.show()
        if not self.other.isVisible():
            self.other.show()
            self._splitter.setSizes([self._splitter.width()] * 2)  # of equal width: both show the same part
            self.canvas.fit()
        if found is None:
            self.differences.show_rows([])
            self.other.set_layers([])
            self.say(self.texts("The other reader has no annotation of this image"))
            return
        disagreements, layers = found
        self.differences.show_rows(disagreement_rows(disagreements, self.texts))
        self.other.set_layers(layers)
        self.other.follow(self.canvas)

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
        for worker in self._workers:
            worker.stop()
        event.accept()


def _twin(renderer: Renderer) -> Renderer:
    """A second view of the same image, without a second copy of its pixels."""
    twin = Renderer(np.zeros((1, 1, 3), np.uint8))
    twin.levels, twin.size = renderer.levels, renderer.size
    return twin
