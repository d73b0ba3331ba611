"""One image under annotation: a mask layer for each class, what was done to them, and the file it came from.

Decisions
- Layers may overlap; a class is a layer, and LabelMe's label.
- Points and lines are kept, never painted; so are areas without a label and holes in nothing.
- Nothing is forgotten: undo reaches back to the opening of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dermseg.data.labelme import Annotation
from dermseg.data.proposals import PROPOSED, as_proposal, is_proposal
from dermseg.errors import DataError
from dermseg.labeling.editor.origins import Origins
from dermseg.labeling.editor.shapes import Mask, flags_of, others_of
from dermseg.labeling.editor.tiles import Step, TileChange, difference, flip, tile_region, tiles_of
from dermseg.labeling.editor.tools import Patch

Box = tuple[int, int, int, int]  # x, y, width, height
Status = Literal["new", "proposed", "corrected", "approved"]
STATUSES: tuple[Status, ...] = ("new", "proposed", "corrected", "approved")
APPROVED = "approved"
PROPOSE = "propose"  # name of the step that takes over a proposal


def status_of(annotation: Annotation | None) -> Status:
    """What a file says of the work on its image."""
    if annotation is None:
        return "new"
    if is_proposal(annotation):
        return "proposed"
    return "approved" if flags_of(annotation).get(APPROVED) else "corrected"


@dataclass(frozen=True)
class _Entry:
    """A step with the image's status before and after it."""

    step: Step
    before: Status
    after: Status


class Document:
    """The masks of one image.

    Parameters
    ----------
    annotation
        Of the image, as read, or an empty one.
    status
        Of the image; None takes what the annotation says.

    Attributes
    ----------
    layers
        Class to ``bool (H, W)``, in the order they came. Read them; change them by the methods only.
    on_record
        Called with a kind and its content after each change; the journal listens here.
    """

    def __init__(self, annotation: Annotation, status: Status | None = None) -> None:
        self.annotation = annotation
        self.size = (annotation.height, annotation.width)
        self.status: Status = status_of(annotation) if status is None else status
        self.layers: dict[str, Mask] = {}
        self.on_record: Callable[[str, Any], None] = lambda kind, content: None
        self._origins = Origins(self.size)
        self._done: list[_Entry] = []
        self._undone: list[_Entry] = []
        self._before: dict[tuple[str, int, int], Mask] = {}  # tiles as they were when the stroke began
        self._saved: tuple[int, Status] = (0, self.status)
        self._saved_step: _Entry | None = None
        self._in_no_file = False
        self._changes = 0
        self.layers.update(self._origins.learn(annotation))

    # -- what it is

    @property
    def changed(self) -> bool:
        """Whether there is anything that the file does not have."""
        return self.state != self._saved

    @property
    def state(self) -> tuple[int, Status]:
        """Another value after every change, to tell whether there was one."""
        return self._changes, self.status

    @property
    def at_risk(self) -> bool:
        """Whether a person's work is gone if it is not saved; a proposal can be had again."""
        last = self._done[-1] if self._done else None
        return self.status in ("corrected", "approved") and (
            self._in_no_file or last is not self._saved_step or self.status != self._saved[1]
        )

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is a step that was taken back."""
        return bool(self._undone)

    @property
    def last_step(self) -> str | None:
        """Name of the step that undo would take back."""
        return self._done[-1].step.name if self._done else None

    @property
    def may_propose_anew(self) -> bool:
        """Whether another proposal would replace nothing but a model's, which nobody has approved."""
        if self.last_step == PROPOSE:
            return self.status != "approved"
        return self.last_step is None and self.status in ("new", "proposed")

    def layer(self, label: str) -> Mask:
        """The mask of a class; a new class starts empty."""
        if label not in self.layers:
            self.layers[label] = np.zeros(self.size, np.bool_)
        return self.layers[label]

    # -- changing it

    def paint(self, label: str, patch: Patch, *, erase: bool = False) -> Box | None:
        """Add a patch to a layer or take it away, as part of the stroke under way; gives the box touched."""
        if not patch.mask.any():
            return None
        mask = self.layer(label)
        for row, column in tiles_of(*patch.box):
            key = (label, row, column)
            if key not in self._before:
                self._before[key] = mask[tile_region(row, column)].copy()
        part = mask[patch.region]
        if erase:
            part &= ~patch.mask
        else:
            part |= patch.mask
        return patch.box

    def finish(self, name: str) -> Step | None:
        """End the stroke: it becomes one step of undo, and goes to the journal. None if nothing changed."""
        changes = [
            difference(label, row, column, before, self.layers[label][tile_region(row, column)])
            for (label, row, column), before in self._before.items()
        ]
        self._before.clear()
        step = Step(name, tuple(change for change in changes if change is not None))
        if not step.changes:
            return None
        self._push(step)
        self.on_record("step", step)
        return step

    def settle(self) -> None:
        """End a stroke under way before the layers are written: no journal may begin with half of it."""
        self.finish("stroke")

    def cancel(self) -> list[Box]:
        """Drop the stroke under way; gives the boxes that changed back."""
        boxes = []
        for (label, row, column), before in self._before.items():
            part = self.layers[label][tile_region(row, column)]
            part[:] = before
            boxes.append(
                (tile_region(row, column)[1].start, tile_region(row, column)[0].start, *part.T.shape)
            )
        self._before.clear()
        return boxes

    def apply(self, name: str, label: str, patch: Patch, *, erase: bool = False) -> Step | None:
        """A stroke of one patch."""
        self.paint(label, patch, erase=erase)
        return self.finish(name)

    def propose(self, annotation: Annotation) -> Step | None:
        """Take over a model's annotation: its classes are replaced, as one step that undo takes back.

        A second proposal in a row (another threshold) takes the place of the first.

        Raises
        ------
        DataError
            The annotation is of an image of another size.
        """
        if (annotation.height, annotation.width) != self.size:
            raise DataError(
                f"a proposal for {annotation.width}x{annotation.height} pixels, "
                f"the image has {self.size[1]}x{self.size[0]} pixels"
            )
        if self.last_step == PROPOSE:
            self.undo()
        drawn = self.learn(annotation)
        if self.status == "proposed":
            # Of a model, corrected by nobody: where the model has nothing now, nothing stays.
            drawn = {label: np.zeros(self.size, np.bool_) for label in self.layers} | drawn
        self.on_record("origin", annotation)
        for label, mask in drawn.items():
            self._replace(label, mask)
        step = self.finish(PROPOSE)
        if step is None and self.status == "new":  # nothing found is a proposal too
            self.set_status("proposed")
        return step

    def learn(self, annotation: Annotation) -> dict[str, Mask]:
        """Remember shapes that draw layers, and the fields of the file that holds them; gives the layers."""
        drawn = self._origins.learn(annotation)
        flags = {**flags_of(self.annotation), **flags_of(annotation)}
        extra = {**self.annotation.extra, **annotation.extra, "flags": flags}
        self.annotation = replace(self.annotation, extra=extra)
        return drawn

    def undo(self) -> list[Box]:
        """Take the last step back; gives the boxes that changed."""
        return self._turn(self._done, self._undone, "undo")

    def redo(self) -> list[Box]:
        """Do again what was taken back last; gives the boxes that changed."""
        return self._turn(self._undone, self._done, "redo")

    def set_status(self, status: Status) -> None:
        """Say how far the work on the image is."""
        if status != self.status:
            self.status = status
            self.on_record("status", status)

    def repeat(self, step: Step) -> None:
        """Apply a step that was recorded before.

        Raises
        ------
        ValueError
            The step does not fit the image.
        """
        self._flip(step.changes)
        self._push(step)

    def repeat_turn(self, kind: Literal["undo", "redo"], step: Step) -> None:
        """Undo or redo a recorded step, even one from before the record began."""
        stack = self._done if kind == "undo" else self._undone
        if not stack:
            stack.append(_Entry(step, self.status, self.status))
        if kind == "undo":
            self.undo()
        else:
            self.redo()

    def _replace(self, label: str, mask: Mask) -> None:
        current = self.layer(label)
        for row, column in tiles_of(0, 0, self.size[1], self.size[0]):
            region = tile_region(row, column)
            if not np.array_equal(current[region], mask[region]):
                self._before.setdefault((label, row, column), current[region].copy())
                current[region] = mask[region]

    def _push(self, step: Step) -> None:
        after: Status = "corrected"
        if step.name == PROPOSE and (self.status in ("new", "proposed") or not self._others(step)):
            after = "proposed"  # nothing of what a person drew is left
        self._done.append(_Entry(step, self.status, after))
        self.status = after
        self._undone.clear()
        self._changes += 1

    def _others(self, step: Step) -> bool:
        """Whether there is an outline in a layer that the step did not touch, or a shape in none."""
        return bool(others_of(self.annotation)) or any(
            mask.any() for label, mask in self.layers.items() if label not in step.layers
        )

    def _turn(self, source: list[_Entry], target: list[_Entry], kind: str) -> list[Box]:
        self.cancel()
        if not source:
            return []
        entry = source.pop()
        target.append(entry)
        self._changes += 1
        self.status = entry.before if kind == "undo" else entry.after
        boxes = self._flip(entry.step.changes)
        self.on_record(kind, entry.step)
        self.on_record("status", self.status)
        return boxes

    def _flip(self, changes: Iterable[TileChange]) -> list[Box]:
        return [flip(self.layer(change.layer), change) for change in changes]

    # -- the file

    def to_annotation(self) -> Annotation:
        """What a LabelMe file of the present state holds."""
        kept = others_of(self.annotation)
        shapes = [s for label, mask in self.layers.items() for s in self._origins.shapes(label, mask)]
        flags = {k: v for k, v in flags_of(self.annotation).items() if k not in (PROPOSED, APPROVED)}
        if self.status == "approved":
            flags[APPROVED] = True
        extra = {**self.annotation.extra, "flags": flags}
        annotation = replace(self.annotation, shapes=(*shapes, *kept), extra=extra)
        return as_proposal(annotation) if self.status == "proposed" else annotation

    def mark_saved(self) -> None:
        """The file now has everything."""
        self._saved = self.state
        self._saved_step = self._done[-1] if self._done else None
        self._in_no_file = False

    def mark_unsaved(self, *, begun_anew: bool = False) -> None:
        """The file does not have what is here, though nothing was done since: it comes from a journal.

        Parameters
        ----------
        begun_anew
            By one that lost what came before: nor does the file have what is here when all steps are undone.
        """
        self._changes += 1
        self._in_no_file = begun_anew
