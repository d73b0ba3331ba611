"""What the hand does with the open image: tools, classes, sliders, undo."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QListWidgetItem

from dermseg.data.labelme import check_label
from dermseg.errors import UsageError
from dermseg.labeling.editor.document import Box, Document
from dermseg.labeling.editor.pen import Pen, Tool

if TYPE_CHECKING:
    from dermseg.apps.desktop.window import Window


def unclosed() -> UsageError:
    """A polygon is under way, and something else is wanted."""
    return UsageError("a polygon is under way", hint="Ctrl+Enter closes it, Escape drops it")


class Editing:
    """Hands tools, classes and settings to the pen and the document, and has the window show what follows.

    Attributes
    ----------
    tool
        The one in hand, also for the next image.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self.tool: Tool = "brush"

    def connect(self) -> None:
        """Listen to the lists and sliders of the window."""
        window = self._window
        window.class_list.currentItemChanged.connect(self._class_chosen)
        window.class_list.itemChanged.connect(self._class_ticked)
        window.sliders.changed.connect(self._slid)
        window.canvas.pressed.connect(self._show_class)

    def check_closed(self) -> None:
        """See that no polygon is under way, which would be lost.

        Raises
        ------
        UsageError
            One is.
        """
        pen = self._window.canvas.pen
        if pen is not None and pen.unclosed:
            raise unclosed()

    def choose_tool(self, tool: Tool) -> None:
        """Take another tool.

        Raises
        ------
        UsageError
            A polygon is under way.
        """
        canvas = self._window.canvas
        if tool != self.tool:
            self._window.menus.tools[self.tool].setChecked(True)
            self.check_closed()
        self.tool = tool
        self._window.menus.tools[tool].setChecked(True)
        if canvas.pen is not None and canvas.pen.tool != tool:
            canvas.refresh(canvas.pen.choose(tool))
            canvas.update()

    def grow(self, direction: int) -> None:
        """Move the class's outline by one pixel of the screen, at least one of the image."""
        canvas = self._window.canvas
        pen, renderer = canvas.pen, canvas.renderer
        if pen is not None and renderer is not None:
            self._show_class()
            pen.label = self._window.session.label
            canvas.refresh(pen.grow(direction * max(1.0, 1.0 / renderer.scale)))
            self._window.edited()

    def undo(self) -> None:
        """Take back the last step, or of a stroke or shape under way what can be taken back of it."""
        self._turn(lambda document: document.undo(), lambda pen: pen.back())

    def redo(self) -> None:
        """Do again what was taken back; nothing while a stroke or a shape is under way."""
        self._turn(lambda document: document.redo(), lambda pen: [])

    def _turn(self, turn: Callable[[Document], list[Box]], busy: Callable[[Pen], list[Box]]) -> None:
        canvas, opened = self._window.canvas, self._window.session.opened
        if opened is None:
            return
        if canvas.pen is not None and canvas.pen.busy:
            canvas.refresh(busy(canvas.pen))
            canvas.update()
        else:
            canvas.refresh(turn(opened.document))
        self._window.edited()

    def add_class(self, label: str) -> None:
        """A new class, in hand at once.

        Raises
        ------
        DataError
            Its name is that of a hole.
        """
        label, opened = label.strip(), self._window.session.opened
        if label and opened is not None:
            check_label(label)
            self.choose_class(label)

    def choose_class(self, label: str) -> None:
        """The class that tools paint."""
        session, pen = self._window.session, self._window.canvas.pen
        session.label = label
        if session.opened is not None:
            session.opened.document.layer(label)
        if pen is not None:
            pen.label = label
        self._window.show_layers()
        self._window.edited()

    def choose_class_number(self, number: int) -> None:
        """The class with this number in the list."""
        session = self._window.session
        if session.opened is not None and number <= len(session.classes):
            self.choose_class(session.classes[number - 1])

    def next_class(self) -> None:
        """The class after the one in hand."""
        session = self._window.session
        if session.opened is not None:
            at = session.classes.index(session.label)
            self.choose_class(session.classes[(at + 1) % len(session.classes)])

    def _show_class(self) -> None:
        """Show the class in hand, whatever was hidden: nobody draws what they do not see."""
        session, masks = self._window.session, self._window.menus.masks
        if session.label in session.hidden or not masks.isChecked():
            session.hidden.discard(session.label)
            masks.setChecked(True)
            self._window.show_layers()

    def _class_chosen(self, item: QListWidgetItem | None) -> None:
        if item is not None:
            self.choose_class(str(item.data(Qt.ItemDataRole.UserRole)))

    def _class_ticked(self, item: QListWidgetItem) -> None:
        label, session = str(item.data(Qt.ItemDataRole.UserRole)), self._window.session
        if item.checkState() == Qt.CheckState.Checked:
            session.hidden.discard(label)
        else:
            session.hidden.add(label)
        self._window.show_masks()

    def _slid(self, name: str, value: float) -> None:
        canvas, opened = self._window.canvas, self._window.session.opened
        renderer, pen = canvas.renderer, canvas.pen
        if name == "Opacity" and renderer is not None:
            renderer.opacity = value
            canvas.refresh()
        elif name == "Tolerance" and pen is not None:
            pen.tolerance = value
        elif name == "Width" and pen is not None:
            canvas.widen(value / 2 / pen.radius)
        elif name == "Threshold":
            # the slider's steps are coarser than a fitted threshold: the nearest stands for that
            own = value == self._window.sliders.nearest(name, self._window.session.own_threshold())
            self._window.assistant.threshold = None if own else value
            # never over what a person drew or approved, today or in the file that was opened: there the
            # threshold is for the next proposal
            if opened is not None and opened.document.may_propose_anew:
                self._window.assistant.propose()
            elif opened is not None:
                said = "The drawing stays; P asks the model with this threshold"
                self._window.say(self._window.texts(said))
