"""What the program asks in dialogs; an empty answer means that the user changed their mind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtWidgets import QFileDialog, QInputDialog, QMessageBox

from dermseg.apps.desktop.worker import Worker
from dermseg.errors import DermsegError
from dermseg.labeling.editor import files

if TYPE_CHECKING:
    from dermseg.apps.desktop.window import Window


class Questions:
    """Asks, and does what was answered.

    Attributes
    ----------
    worker
        The thread that exports.
    """

    def __init__(self, window: Window) -> None:
        self._window, self._texts = window, window.texts
        self.worker = Worker(window)

    def images(self) -> None:
        """Ask for images and open them."""
        names, _ = QFileDialog.getOpenFileNames(self._window, self._texts("Open images…"))
        if names:
            self._window.open_inputs(names)

    def folder(self) -> None:
        """Ask for a folder and open its images."""
        if folder := self._folder("Open folder…"):
            self._window.open_inputs([folder])

    def second(self) -> None:
        """Ask for another reader's folder and compare with it."""
        if folder := self._folder("Second reader…"):
            self._window.session.second = folder
            self._window.readout.compare()

    def mask(self) -> None:
        """Ask for a name and write the class in hand as a mask."""
        session, title = self._window.session, self._texts("Export mask as PNG…")
        opened = session.opened
        if opened is None:
            return
        start = f"{Path(opened.entry.name).stem}_segmentation.png"
        if path := self._file(title, start, "PNG (*.png)"):
            files.export_mask(opened.document, session.label, path)
            self._window.say(self._texts("Saved: {name}", name=path.name))

    def coco(self) -> None:
        """Ask for a name and write all images of the list as COCO."""
        title = self._texts("Export all as COCO…")
        if path := self._file(title, "annotations.json", "COCO (*.json)"):
            self._window.save()
            self._window.say(self._texts("Writing {name}", name=path.name))
            entries = self._window.session.entries  # hundreds of large images take minutes
            self.worker.submit(lambda: files.export_coco(entries, path), self._exported)

    def _exported(self, done: files.Exported) -> None:
        said = self._texts("Images written: {number}", number=done.written)
        if done.left_out:
            why = self._texts("{number} left out: proposals, or of another image", number=done.left_out)
            said = f"{said}; {why}"
        self._window.say(said)

    def new_class(self) -> None:
        """Ask for a class's name and take it in hand."""
        title, label = self._texts("New class…"), self._texts("Name of the class")
        name, good = QInputDialog.getText(self._window, title, label)
        if good:
            self._window.editing.add_class(name)

    def may_drop(self, name: str, error: DermsegError) -> bool:
        """Whether the work on an image may be lost, since it cannot be saved."""
        box = QMessageBox(self._window)
        box.setIcon(QMessageBox.Icon.Warning)
        box.setText(self._texts("The work on {name} is in no file", name=name))
        box.setInformativeText(self._texts.error(error))
        box.setStandardButtons(QMessageBox.StandardButton.Discard | QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(QMessageBox.StandardButton.Cancel)
        return box.exec() == QMessageBox.StandardButton.Discard

    def may_replace(self, error: DermsegError) -> bool:
        """Whether to write over what another program has made of the annotation."""
        box = QMessageBox(self._window)
        box.setIcon(QMessageBox.Icon.Warning)
        box.setText(
            self._texts("Write over {name}?", name="" if error.file is None else Path(error.file).name)
        )
        box.setInformativeText(self._texts.error(error))
        box.setStandardButtons(QMessageBox.StandardButton.Save | QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(QMessageBox.StandardButton.Cancel)
        return box.exec() == QMessageBox.StandardButton.Save

    def _file(self, title: str, start: str, kind: str) -> Path | None:
        dialog = QFileDialog(self._window, title, "", kind)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(Path(start).suffix)  # asked about, too, where such a file is there
        dialog.selectFile(start)
        return Path(dialog.selectedFiles()[0]) if dialog.exec() else None

    def _folder(self, title: str) -> Path | None:
        name = QFileDialog.getExistingDirectory(self._window, self._texts(title))
        return Path(name) if name else None
