"""Menus, the bar of tools and every key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QAction, QActionGroup, QKeySequence
from PySide6.QtWidgets import QMenu, QToolBar

from dermseg.labeling.editor.pen import TOOLS, Tool

if TYPE_CHECKING:
    from dermseg.apps.desktop.window import Window

# name, key, and what to do with it
_TOOLS: dict[Tool, tuple[str, str, str]] = {
    "brush": ("Brush", "B", "paint"),
    "eraser": ("Eraser", "E", "take away"),
    "polygon": (
        "Polygon",
        "G",
        "click its corners; the first again or Ctrl+Enter closes it, Escape drops it",
    ),
    "lasso": ("Lasso", "L", "draw around an area"),
    "fill": ("Smart fill", "F", "click an area of like colour"),
    "box": ("Model in box", "M", "draw a box around one lesion"),
    "click": ("Model at click", "K", "click one lesion"),
}
_RIGHT = "The right button takes away instead of adding"


@dataclass(frozen=True)
class Actions:
    """Those whose state the window changes or reads."""

    undo: QAction
    redo: QAction
    camera: QAction
    masks: QAction
    tools: dict[Tool, QAction]


def build_menus(window: Window) -> Actions:
    """Fill the window's menu bar and its bar of tools."""
    bar = QToolBar(window.texts("Tool"))
    bar.setMovable(False)
    window.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)  # it would offer to hide the bar for good
    bar.setIconSize(QSize(1, 1))
    window.addToolBar(bar)
    camera = _file_menu(window)
    undo, redo, approve = _edit_menu(window)
    tools = _tool_menu(window, bar)
    masks = _view_menu(window)
    bar.addSeparator()
    for action in (_model_menu(window), approve):
        action.setToolTip(f"{action.text()} ({action.shortcut().toString()})")
        bar.addAction(action)
    for number in range(1, 10):
        action = QAction(window)
        action.setShortcut(QKeySequence(str(number)))
        action.triggered.connect(lambda *_, number=number: window.editing.choose_class_number(number))
        window.addAction(action)
    return Actions(undo, redo, camera, masks, tools)


def _menu(window: Window, name: str) -> QMenu:
    return window.menuBar().addMenu(window.texts(name))


def _add(
    window: Window, menu: QMenu, name: str, keys: str, do: Callable[[], object], *, checkable: bool = False
) -> QAction:
    action = QAction(window.texts(name), window)
    action.setObjectName(name)
    action.setShortcuts([QKeySequence(key) for key in keys.split(" ")])
    action.setCheckable(checkable)
    action.triggered.connect(lambda *_: window.guarded(do))
    menu.addAction(action)
    return action


def _file_menu(window: Window) -> QAction:
    add = partial(_add, window, _menu(window, "File"))
    add("Open images…", "Ctrl+O", window.ask.images)
    add("Open folder…", "Ctrl+Shift+O", window.ask.folder)
    add("Second reader…", "Ctrl+R", window.ask.second)
    add("Save", "Ctrl+S", window.save)
    add("Export mask as PNG…", "Ctrl+E", window.ask.mask)
    add("Export all as COCO…", "Ctrl+Shift+E", window.ask.coco)
    camera = add("Camera", "Ctrl+L", window.toggle_camera, checkable=True)
    add("Quit", "Ctrl+Q", window.close)
    return camera


def _edit_menu(window: Window) -> tuple[QAction, QAction, QAction]:
    add = partial(_add, window, _menu(window, "Edit"))
    undo = add("Undo", "Ctrl+Z", window.editing.undo)
    redo = add("Redo", "Ctrl+Shift+Z Ctrl+Y", window.editing.redo)
    add("New class…", "Ctrl+N", window.ask.new_class)
    add("Next class", "C", window.editing.next_class)
    add("Grow", "Ctrl+Up", lambda: window.editing.grow(1))
    add("Shrink", "Ctrl+Down", lambda: window.editing.grow(-1))
    approve = add("Approve and go on", "A", window.approve)
    approve.setAutoRepeat(False)  # a key held down sees no image
    add("Next image", "N PgDown", lambda: window.step(1))
    add("Previous image", "V PgUp", lambda: window.step(-1))
    add("Next not approved", "Shift+N", window.step_to_unapproved)
    return undo, redo, approve


def _tool_menu(window: Window, bar: QToolBar) -> dict[Tool, QAction]:
    add = partial(_add, window, _menu(window, "Tool"))
    group = QActionGroup(window)
    tools = {}
    for tool in TOOLS:
        name, key, how = _TOOLS[tool]
        action = add(name, key, partial(window.editing.choose_tool, tool), checkable=True)
        right = "" if tool == "eraser" else f"\n{window.texts(_RIGHT)}"
        action.setToolTip(f"{window.texts(name)} ({key}): {window.texts(how)}{right}")
        group.addAction(action)
        bar.addAction(action)
        tools[tool] = action
    tools["brush"].setChecked(True)
    add("Wider", "] +", lambda: window.canvas.widen(1.2))
    add("Narrower", "[ -", lambda: window.canvas.widen(1 / 1.2))
    return tools


def _view_menu(window: Window) -> QAction:
    add = partial(_add, window, _menu(window, "View"))
    add("Whole image", "Ctrl+0", window.canvas.fit)
    add("Full size", "Ctrl+1", lambda: window.canvas.zoom_to(1.0))
    add("Zoom in", "Ctrl++ Ctrl+=", lambda: window.canvas.zoom(1.25))
    add("Zoom out", "Ctrl+-", lambda: window.canvas.zoom(0.8))
    masks = add("Show masks", "O", window.show_layers, checkable=True)
    masks.setChecked(True)
    add("More opaque", "Ctrl+Shift+Up", lambda: window.sliders.move("Opacity", 0.1))
    add("More transparent", "Ctrl+Shift+Down", lambda: window.sliders.move("Opacity", -0.1))
    return masks


def _model_menu(window: Window) -> QAction:
    add = partial(_add, window, _menu(window, "Model"))
    propose = add("Propose", "P", lambda: window.assistant.propose(window.session.label))
    add("Higher threshold", "T", lambda: window.sliders.move("Threshold", 0.05))
    add("Lower threshold", "Shift+T", lambda: window.sliders.move("Threshold", -0.05))
    return propose
