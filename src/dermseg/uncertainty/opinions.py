"""Where several opinions on one image come from: dropout masks, turned images, several networks.

All three are called alike, with the network's input, and give the same `Uncertainty`; whoever uses them
does not need to know which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from dermseg.errors import ModelError
from dermseg.inference.bundle import Bundle
from dermseg.inference.postprocess import to_probability
from dermseg.inference.predictor import Model
from dermseg.inference.tta import stack_views, undo_views
from dermseg.uncertainty.maps import Floats, Uncertainty
from dermseg.uncertainty.mc_dropout import DEFAULT_PASSES, MC_PART, McSession


class Opinions(Protocol):
    """Anything that looks at an image several times."""

    @property
    def summary(self) -> str:
        """What it does, in a few words."""
        ...

    def __call__(self, image: Floats) -> Uncertainty:
        """Maps for one network input ``float32 (3, H, W)``, as ``Model.prepare`` makes it."""
        ...


class McDropout:
    """Passes with channels dropped at random; the encoder runs once.

    Parameters
    ----------
    model
        A model whose bundle holds the Monte-Carlo part (``has_mc_dropout``).
    passes, seed
        Number of passes, and the seed of their masks: every image meets the same masks, so that two images
        are compared under the same conditions and a result can be repeated.
    """

    def __init__(self, model: Model, passes: int = DEFAULT_PASSES, seed: int = 0) -> None:
        self.passes, self.seed = passes, seed
        self.summary = f"Monte-Carlo dropout, {passes} passes"
        self.temperature = model.card.postprocessing.temperature
        self.session = load_mc_session(model.bundle, threads=model.session.threads)

    def __call__(self, image: Floats) -> Uncertainty:
        logits = self.session.repeat(image, self.passes, self.seed)
        return Uncertainty(to_probability(logits[:, 0], self.temperature))


class Flips:
    """The 8 flips and quarter turns of the image (4 where it is not square); works with every network."""

    summary = "flips and quarter turns"

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, image: Floats) -> Uncertainty:
        return Uncertainty(undo_views(self.model.infer(stack_views(image))))


class Ensemble:
    """Several networks that take the same input (Lakshminarayanan 2017, arXiv:1612.01474).

    Raises
    ------
    ModelError
        No model, or models that prepare an image differently.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        if not models:
            raise ModelError("an ensemble needs at least one model")
        names = {"input_name", "output_name"}
        first = models[0].card
        for model in models[1:]:
            card = model.card
            if card.preprocessing.model_dump(exclude=names) != first.preprocessing.model_dump(exclude=names):
                raise ModelError(
                    f"models '{first.name}' and '{card.name}' prepare images differently",
                    hint="an ensemble is made of networks of the same size and normalisation",
                )
        self.models = list(models)
        self.summary = f"ensemble of {len(models)} networks"

    def __call__(self, image: Floats) -> Uncertainty:
        maps = [model.infer(image[None])[0] for model in self.models]
        height, width = maps[0].shape
        same = [cv2.resize(p, (width, height), interpolation=cv2.INTER_LINEAR) for p in maps]
        return Uncertainty(np.stack(same).astype(np.float32, copy=False))


def open_opinions(model: Model) -> McDropout | Flips:
    """Monte-Carlo dropout where the bundle has it, else flips and turns."""
    return McDropout(model) if has_mc_dropout(model.bundle) else Flips(model)


def has_mc_dropout(bundle: Bundle) -> bool:
    """Whether the bundle holds what Monte-Carlo dropout needs."""
    return MC_PART in bundle.card.attachments


def mc_graph(bundle: Bundle) -> bytes:
    """The ONNX graph with Monte-Carlo dropout, for any program that runs ONNX: model and part in a row.

    Raises
    ------
    ModelError
        The bundle has none, or a file is not what the card says.
    """
    if not has_mc_dropout(bundle):
        raise ModelError(
            f"model '{bundle.card.name}' has no Monte-Carlo dropout",
            file=bundle.path,
            hint="only encoder_unet has it; 'dermseg uncertainty fit' adds it to a bundle",
        )
    variant = str(bundle.card.attachments[MC_PART].options["variant"])
    return bundle.read_model(variant) + bundle.read_attachment(MC_PART)


def load_mc_session(bundle: Bundle, *, threads: int | None = None) -> McSession:
    """The session of ``mc_graph``."""
    graph = mc_graph(bundle)
    return McSession(graph, rate=float(bundle.card.attachments[MC_PART].options["rate"]), threads=threads)
