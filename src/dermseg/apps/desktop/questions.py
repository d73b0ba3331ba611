"""What the program asks in dialogs; an empty answer means that the user changed their mind."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtWidgets import QFileDialog, QInputDialog, QWidget

from dermseg.apps.desktop.texts import Texts


def images(parent: QWidget, texts: Texts) -> list[str]:
    """Image files to open."""
    names, _ = QFileDialog.getOpenFileNames(parent, texts("Open images…"))
    return names


def folder(parent: QWidget, texts: Texts, title: str) -> Path | None:
    """A folder, asked for under a title."""
    name = QFileDialog.getExistingDirectory(parent, texts(title))
    return Path(name) if name else None


def mask_file(parent: QWidget, texts: Texts, start: str) -> Path | None:
    """Where to write a mask; ``start`` is offered."""
    name, _ = QFileDialog.getSaveFileName(parent, texts("Export mask as PNG…"), start, "PNG (*.png)")
    return Path(name) if name else None


def coco_file(parent: QWidget, texts: Texts) -> Path | None:
    """Where to write all annotations."""
    title = texts("Export all as COCO…")
    name, _ = QFileDialog.getSaveFileName(parent, title, "annotations.json", "COCO (*.json)")
    return Path(name) if name else None


def class_name(parent: QWidget, texts: Texts) -> str:
    """The name of a new class."""
    name, good = QInputDialog.getText(parent, texts("New class…"), texts("Name of the class"))
    return name if good else ""
