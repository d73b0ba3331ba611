"""The panels beside the picture: images, classes and sliders, measurements, disagreement."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QLocale, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QBrush, QColor, QIcon, QPixmap, QResizeEvent
from PySide6.QtWidgets import (
    QDockWidget,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMainWindow,
    QSlider,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from dermseg.apps.desktop.texts import Texts
from dermseg.apps.desktop.theme import CLASS_COLOURS, ONLY_FIRST, ONLY_SECOND
from dermseg.labeling.editor.compare import Disagreement
from dermseg.labeling.editor.document import Status
from dermseg.measure.geometry import Reading

_STATUS_COLOURS = {"new": "#8a8a8a", "proposed": "#e6b800", "corrected": "#6cc0e5", "approved": "#5fc98a"}

# name: (lowest, highest, steps per unit, where it stands at first)
_RANGES = {
    "Opacity": (0, 100, 100.0, 0.2),
    "Threshold": (2, 98, 100.0, 0.5),
    "Width": (1, 400, 1.0, 1),  # each pen brings its own
    "Tolerance": (1, 60, 1.0, 12),
}


class FileList(QListWidget):
    """The images, each with the status of the work on it in words and colour.

    Attributes
    ----------
    approved
        Rows of the images that are.
    """

    def __init__(self, texts: Texts) -> None:
        super().__init__()
        self._texts = texts
        self._kept = -1
        self.approved: set[int] = set()
        self.setUniformItemSizes(True)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # names differ at their ends
        self.setFocusPolicy(Qt.FocusPolicy.ClickFocus)

    def show_names(self, names: Sequence[str]) -> None:
        """Other images."""
        self.clear()
        self.approved = set()
        size = QSize(0, 2 * self.fontMetrics().lineSpacing() + 4)  # as wide as the list, whatever the name
        for name in names:
            item = QListWidgetItem(name)
            item.setSizeHint(size)
            item.setToolTip(name)
            self.addItem(item)

    def show_status(self, row: int, name: str, status: Status | None, unsaved: bool) -> None:
        """The status of one image; None means that its file cannot be read."""
        item = self.item(row)
        if item is None:
            return
        (self.approved.add if status == "approved" else self.approved.discard)(row)
        word = self._texts("cannot be read" if status is None else status)
        mark = f", {self._texts('unsaved')}" if unsaved else ""
        item.setText(f"{name}\n{word}{mark}")
        colour = "#e5695f" if status is None else _STATUS_COLOURS[status]
        item.setForeground(QBrush(QColor(colour)))

    def put_back(self, row: int) -> None:
        """The image of this row is still the one that is open, whatever was chosen."""
        self._kept = row
        self._put_back()
        QTimer.singleShot(0, self._put_back)  # a click marks its row after the change was refused

    def _put_back(self) -> None:
        was = self.blockSignals(True)
        self.setCurrentRow(self._kept)
        self.blockSignals(was)


class Sliders(QWidget):
    """Opacity, threshold, width of the tool, tolerance of smart fill.

    Signals
    -------
    changed
        Name and value of what the user moved.
    """

    changed = Signal(str, float)

    def __init__(self, texts: Texts) -> None:
        super().__init__()
        form = QFormLayout(self)
        self._texts = texts
        self._sliders: dict[str, QSlider] = {}
        self._values: dict[str, QLabel] = {}
        for name, (lowest, highest, steps, start) in _RANGES.items():
            slider = QSlider(Qt.Orientation.Horizontal)
            slider.setRange(lowest, highest)
            slider.setValue(round(start * steps))
            slider.setAccessibleName(texts(name))
            slider.valueChanged.connect(lambda value, name=name: self._emit(name, value))
            self._sliders[name], self._values[name] = slider, QLabel()
            self._values[name].setMinimumWidth(self.fontMetrics().horizontalAdvance("0,000"))
            row = QHBoxLayout()
            row.addWidget(slider)
            row.addWidget(self._values[name])
            form.addRow(texts(name), row)
            self._show_value(name, self.value(name))

    def _show_value(self, name: str, value: float) -> None:
        decimals = 2 if _RANGES[name][2] > 1 else 0
        self._values[name].setText(_number(value, self._texts, decimals))

    def _emit(self, name: str, value: int) -> None:
        self._show_value(name, self.value(name))
        self.changed.emit(name, value / _RANGES[name][2])

    def value(self, name: str) -> float:
        """Where a slider stands."""
        return self._sliders[name].value() / _RANGES[name][2]

    def nearest(self, name: str, value: float) -> float:
        """Where a slider stands for a value between its steps, or beyond its ends."""
        lowest, highest, steps, _ = _RANGES[name]
        return min(max(round(value * steps), lowest), highest) / steps

    def set_value(self, name: str, value: float, *, quiet: bool = False) -> None:
        """Move a slider; ``quiet`` without saying so. Of a value beyond its end the number is right."""
        slider = self._sliders[name]
        was = slider.blockSignals(quiet)
        slider.setValue(round(value * _RANGES[name][2]))
        slider.blockSignals(was)
        if quiet:  # of the tool on a large image, say; what keys move ends where the slider does
            self._show_value(name, value)

    def move(self, name: str, by: float) -> None:  # type: ignore[override]
        """Move a slider by so much, as its keys do."""
        self.set_value(name, self.value(name) + by)


class ClassList(QListWidget):
    """The classes with their colours; a tick shows or hides one."""

    def show_classes(self, labels: Sequence[str], current: str, hidden: set[str]) -> None:
        """Other classes, or another one in hand."""
        was = self.blockSignals(True)
        self.clear()
        for number, label in enumerate(labels):
            item = QListWidgetItem(f"{number + 1}  {label}")
            item.setData(Qt.ItemDataRole.UserRole, label)
            item.setCheckState(Qt.CheckState.Unchecked if label in hidden else Qt.CheckState.Checked)
            swatch = QPixmap(14, 14)
            swatch.fill(QColor(*CLASS_COLOURS[number % len(CLASS_COLOURS)]))
            item.setIcon(QIcon(swatch))
            self.addItem(item)
            if label == current:
                self.setCurrentItem(item)
        self.blockSignals(was)


class Message(QLabel):
    """Two lines of plain text below the picture, more where a long one needs them."""

    def __init__(self) -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.PlainText)  # names of files are no markup
        self.setWordWrap(True)
        self._fit()

    def setText(self, text: str) -> None:  # noqa: N802
        """Another text."""
        super().setText(text)
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        """Narrower, it needs more lines."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:  # the end of an error says what to do
        two = 2 * self.fontMetrics().lineSpacing()
        self.setMinimumHeight(two)  # heightForWidth gives no less than what it was
        self.setFixedHeight(max(two, self.heightForWidth(self.width())))


def dock(window: QMainWindow, title: str, content: QWidget, area: Qt.DockWidgetArea) -> QDockWidget:
    """Put a panel at a side of the window; it can be moved, not closed."""
    panel = QDockWidget(title)
    panel.setFeatures(QDockWidget.DockWidgetFeature.DockWidgetMovable)
    panel.setWidget(content)
    window.addDockWidget(area, panel)
    return panel


class Table(QTableWidget):
    """A small table to read from."""

    def __init__(self, columns: int) -> None:
        super().__init__(0, columns)
        self.verticalHeader().hide()
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setShowGrid(False)

    def show_heads(self, heads: Sequence[tuple[str, tuple[int, int, int] | None]]) -> None:
        """Name the columns, some in the colour that the picture has for them."""
        for column, (text, colour) in enumerate(heads):
            head = QTableWidgetItem(text)
            if colour is not None:
                head.setForeground(QColor(*colour))
            self.setHorizontalHeaderItem(column, head)

    def show_rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Other content."""
        self.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                self.setItem(number, column, QTableWidgetItem(text))
        self.resizeRowsToContents()


def _number(value: float, texts: Texts, decimals: int = 0) -> str:
    return QLocale(texts.language).toString(float(value), "f", decimals)


def reading_rows(reading: Reading, expected_dice: float | None, texts: Texts) -> list[tuple[str, str]]:
    """What the measurements panel shows: millimetres where they are known, else pixels."""
    if not reading.area_px:
        return [(texts("Area"), "0 px")]

    def length(mm: float | None, px: float) -> str:
        return f"{_number(px, texts, 1)} px" if mm is None else f"{_number(mm, texts, 2)} mm"

    area = f"{_number(reading.area_px, texts)} px"
    if reading.area_mm2 is not None:
        area = f"{_number(reading.area_mm2, texts, 2)} mm²"
    rows = [
        (texts("Area"), area),
        (
            texts("Share of the image"),
            texts("{value}%", value=_number(reading.area_fraction * 100, texts, 1)),
        ),
        (texts("Perimeter"), length(reading.perimeter_mm, reading.perimeter_px)),
        (texts("Largest diameter"), length(reading.feret_max_mm, reading.feret_max_px)),
        (texts("Smallest diameter"), length(reading.feret_min_mm, reading.feret_min_px)),
        (texts("Circularity"), "" if reading.circularity is None else _number(reading.circularity, texts, 2)),
        (texts("Parts"), str(reading.components)),
    ]
    if expected_dice is not None:
        rows.append((texts("Expected Dice"), _number(expected_dice, texts, 2)))
    return rows


def disagreement_heads(texts: Texts) -> list[tuple[str, tuple[int, int, int] | None]]:
    """The columns of ``disagreement_rows``; the panel is narrow."""
    here, there = (texts(whose).replace(" ", "\n") for whose in ("Only here", "Only there"))
    return [(texts("Class"), None), ("Dice", None), (here, ONLY_FIRST), (there, ONLY_SECOND)]


def disagreement_rows(found: Sequence[Disagreement], texts: Texts) -> list[tuple[str, str, str, str]]:
    """Class, Dice, and the pixels that only one of the readers has."""
    return [
        (
            d.label,
            _number(d.dice, texts, 3),
            f"{_number(d.only_first, texts)} px",
            f"{_number(d.only_second, texts)} px",
        )
        for d in found
    ]
