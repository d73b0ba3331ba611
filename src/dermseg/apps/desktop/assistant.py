"""The model at work on the open image: proposals, and one lesion in a box or under a click."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dermseg.apps.desktop.session import Seen
from dermseg.apps.desktop.worker import Worker
from dermseg.data.labelme import Annotation
from dermseg.errors import DermsegError
from dermseg.images.load import load_image
from dermseg.inference.predictor import Model
from dermseg.inference.result import Result
from dermseg.labeling.editor.document import Box, Status
from dermseg.labeling.editor.files import Opened
from dermseg.labeling.editor.narrow import narrow, segment_box, segment_click
from dermseg.labeling.editor.tools import Patch
from dermseg.labeling.propose import annotate

if TYPE_CHECKING:
    from dermseg.apps.desktop.window import Window


def see(model: Model, opened: Opened) -> Seen:
    """Let the network look at an image."""
    pixels = opened.pixels
    if opened.info.format == "JPEG":  # decoded reduced, as `dermseg segment` does: the same mask
        pixels = load_image(opened.entry.source, min_side=model.min_side).pixels
    (probability,), features = model.look(model.prepare(pixels)[None])
    return Seen(probability, model.gate_view(pixels), None if features is None else features[0])


class Assistant:
    """Asks the model in a thread of its own and gives the document what it finds.

    Attributes
    ----------
    worker
        The thread; a new question takes the place of one that waits.
    threshold
        The one that the user wants; None leaves it to the model.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self.worker = Worker(window)
        self.threshold: float | None = None
        self._label: str | None = None  # of the open image's last proposal

    def forget(self) -> None:
        """Another image is about to be opened."""
        self.worker.cancel()
        self.threshold = self._label = None

    def propose(self, label: str | None = None) -> None:
        """Ask for the open image's outline.

        Parameters
        ----------
        label
            The class that it is wanted in; None takes that of the last proposal, else the image's first,
            whatever class is in hand.
        """
        session, texts = self._window.session, self._window.texts
        opened = session.opened
        if opened is None:
            return
        self._window.say(texts("The model looks at the image"))
        self._label = chosen = label or self._label or next(iter(opened.document.layers))
        name, threshold = opened.document.annotation.image, self.threshold
        earlier = session.seen
        state = opened.document.state

        def ask() -> tuple[Seen, Result, Annotation]:
            model = session.model()
            seen = earlier or see(model, opened)  # for another threshold the network need not look again
            result = model.finish(seen.probability, opened.document.size, threshold=threshold)
            result = model.judge(result, seen.gate_view, seen.features)
            return seen, result, annotate(model, result, image=name, label=chosen, epsilon=0.0)

        self.worker.submit(ask, lambda found: self._proposed(state, *found))

    def _proposed(
        self, state: tuple[int, Status], seen: Seen, result: Result, annotation: Annotation
    ) -> None:
        window, texts = self._window, self._window.texts
        opened = window.session.opened
        if opened is None:
            return
        if opened.document.state != state or (window.canvas.pen is not None and window.canvas.pen.busy):
            window.say("")
            return  # the user has drawn since, or is drawing: their stroke counts
        window.session.seen, window.session.result = seen, result
        window.sliders.set_value("Threshold", result.threshold, quiet=True)
        try:
            opened.document.propose(annotation)
        except DermsegError as error:
            window.report(error)
            return
        window.show_layers()
        window.edited()
        findings = () if result.verdict is None else result.verdict.findings
        found = "; ".join(texts(finding.reason) for finding in findings)
        problem = "" if opened.journal.problem is None else texts.error(opened.journal.problem)
        lines = (problem, found if result.status == "ok" else texts("Nothing found"))
        window.say("; ".join(line for line in lines if line))

    def ask(self, kind: str, box: Box, erase: bool) -> None:
        """Ask for one lesion: ``box`` says inside which box, ``click`` at which point."""
        session, threshold = self._window.session, self.threshold
        opened = session.opened
        if opened is None:
            return
        self._window.say(self._window.texts("The model looks at the image"))

        def ask() -> Patch:
            if kind == "box":
                return segment_box(session.model(), opened.pixels, box, threshold=threshold)
            return segment_click(session.model(), opened.pixels, (box[0], box[1]), threshold=threshold)

        label = session.label
        self.worker.submit(ask, lambda patch: self._narrowed(label, kind, patch, erase))

    def _narrowed(self, label: str, kind: str, patch: Patch, erase: bool) -> None:
        """Take over the lesion that was meant, or take it away."""
        window = self._window
        opened = window.session.opened
        if opened is None:
            return
        document = opened.document
        if not patch.mask.any():
            window.say(window.texts("Nothing found"))
            return
        window.guarded(lambda: narrow(document, kind, label, patch, erase=erase))
        window.say("")
        window.show_layers()
        window.edited()
