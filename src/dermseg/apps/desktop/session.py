"""What the window works on, without a window: the images, the open one, the class in hand, the model."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dermseg.apps.desktop.render import Layer
from dermseg.apps.desktop.theme import CLASS_COLOURS, ONLY_FIRST, ONLY_SECOND
from dermseg.inference.bundle import load_bundle
from dermseg.inference.predictor import Model, load_model
from dermseg.inference.result import Result
from dermseg.labeling.editor.claim import Claim
from dermseg.labeling.editor.compare import Disagreement, compare_layers
from dermseg.labeling.editor.document import Document
from dermseg.labeling.editor.files import Entry, Opened, list_images, read_second, save

DEFAULT_LABEL = "lesion"


class Seen(NamedTuple):
    """What the network saw in an image, for outlines at any threshold and their verdicts.

    ``probability`` as ``Model.look`` gives it, ``gate_view`` and ``features`` as ``Model.judge`` takes them.
    """

    probability: NDArray[np.float32]
    gate_view: NDArray[np.uint8] | None
    features: NDArray[np.float32] | None


class Session:
    """Images and the state of the work on them.

    Parameters
    ----------
    model
        Name or path of a bundle; loaded when it is first wanted.
    output
        Folder for the annotations; None puts each beside its image.
    second
        Folder with another reader's annotations, to compare with.
    """

    def __init__(
        self, model: str = "default", output: Path | None = None, second: Path | None = None
    ) -> None:
        self.output, self.second = output, second
        self.entries: list[Entry] = []
        self.row = -1
        self.unreadable: set[int] = set()  # rows whose image could not be opened
        self.opened: Opened | None = None
        self.seen: Seen | None = None  # by the network in the open image
        self.result: Result | None = None  # the model's last answer for the open image
        self.label = DEFAULT_LABEL
        # Of all images so far: each keeps its number and colour from one to the next.
        self.classes: list[str] = []
        self.hidden: set[str] = set()
        self._model_name = model
        self._model: Model | None = None
        self._own_threshold: float | None = None
        self._lock = threading.Lock()
        self._claim: Claim | None = None

    def model(self) -> Model:
        """The model; safe to ask for in any thread."""
        with self._lock:
            if self._model is None:
                self._model = load_model(self._model_name)
            return self._model

    def threshold(self) -> float:
        """What the open image's outline was proposed with, where its file says so, else the model's own."""
        facts = None if self.opened is None else self.opened.document.annotation.extra.get("dermseg")
        noted = facts.get("threshold") if isinstance(facts, dict) else None
        return noted if isinstance(noted, float) and 0 < noted < 1 else self.own_threshold()

    def own_threshold(self) -> float:
        """The model's own, of its card."""
        if self._own_threshold is None:
            self._own_threshold = load_bundle(self._model_name).card.postprocessing.threshold
        return self._own_threshold

    def find(self, inputs: Sequence[str | Path]) -> tuple[list[Entry], list[str]]:
        """Look for images, for ``take``; and what was left out, in words.

        Raises
        ------
        UsageError
            There are none, or annotations cannot be written where they should be.
        """
        remarks: list[str] = []
        return list_images(inputs, self.output, remarks), remarks

    def take(self, entries: list[Entry]) -> None:
        """Take other images."""
        self.entries, self.row = entries, -1
        self.unreadable.clear()

    def learn_classes(self, labels: Iterable[str]) -> None:
        """Remember classes that are new, behind those that are known."""
        self.classes += [label for label in dict.fromkeys(labels) if label not in self.classes]

    def hold(self, row: int) -> None:
        """Be the only window that works on an image, until ``let_go``.

        Raises
        ------
        DermsegError
            Another one does.
        """
        self.let_go()
        entry = self.entries[row]
        self._claim = Claim(entry.annotation, entry.root)

    def let_go(self) -> None:
        """Other windows may work on the image."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()

    def adopt(self, row: int, opened: Opened) -> None:
        """An image has been opened."""
        self.row, self.opened, self.seen, self.result = row, opened, None, None
        self.unreadable.discard(row)
        layers = opened.document.layers
        if not layers:  # nothing is drawn: the model's outline comes first, and what was in hand is at hand
            opened.document.layer(DEFAULT_LABEL)
            opened.document.layer(self.label)
            self.label = DEFAULT_LABEL
        elif self.label not in layers:
            self.label = next(iter(layers))
        self.learn_classes(layers)

    def save(self, *, over: bool = False) -> bool:
        """Write the open image's annotation, if there is anything new; says whether it did.

        Raises
        ------
        ChangedError
            Another program has changed the file meanwhile, and it is not to be written ``over``.
        DermsegError
            It cannot be written.
        """
        if self.opened is None:
            return False
        opened = self.opened
        opened.document.settle()
        if not opened.document.changed:
            if opened.journal.path.exists():  # of a proposal that was what is there already
                opened.journal.restart(opened.document)
            return False
        save(opened, over=over)
        return True

    def layers(self) -> Sequence[Layer]:
        """What the picture shows."""
        if self.opened is None:
            return ()
        layers = self.opened.document.layers
        self.learn_classes(layers)  # a proposal may have brought one
        return [
            Layer(layers[label], CLASS_COLOURS[number % len(CLASS_COLOURS)], label not in self.hidden)
            for number, label in enumerate(self.classes)
            if label in layers
        ]

    def compare(self) -> tuple[list[Disagreement], list[Layer]] | None:
        """How the second reader differs, and layers that show where; None where there is no second reading.

        Raises
        ------
        DataError
            The other annotation cannot be read, or is of another image.
        """
        if self.opened is None or self.second is None:
            return None
        annotation = read_second(self.opened.entry, self.second)
        if annotation is None:
            return None
        other = Document(annotation).layers
        mine = self.opened.document.layers
        found = compare_layers(mine, other)
        size = self.opened.document.size
        first, second = _union(mine.values(), size), _union(other.values(), size)
        both = first & second
        shown = [
            Layer(second, (255, 255, 255)),
            Layer(first & ~both, ONLY_FIRST),
            Layer(second & ~both, ONLY_SECOND),
        ]
        return found, shown


def _union(masks: Iterable[NDArray[np.bool_]], size: tuple[int, int]) -> NDArray[np.bool_]:
    total = np.zeros(size, np.bool_)
    for mask in masks:
        total |= mask
    return total
