"""What the user chose for a batch, the model that it goes with, and the segmenter made of both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dermseg.errors import ModelError, UsageError
from dermseg.inference.outputs import ENCODED_KINDS
from dermseg.inference.postprocess import Lesions
from dermseg.inference.predictor import Model
from dermseg.inference.stages import Encoder, Segmenter
from dermseg.uncertainty.margins import DEFAULT_ALPHA, check_margins, no_margins
from dermseg.uncertainty.opinions import open_opinions


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What the user chose. All of it shapes the results; ``--resume`` needs the same again.

    Parameters
    ----------
    threshold
        Instead of the model's, in (0, 1).
    lesions
        ``largest`` or ``all``.
    tta
        Average over flips and quarter turns.
    save
        Kinds of files, of ``outputs.SAVE_KINDS``.
    max_megapixels
        Larger images are refused.
    allow_truncated
        Use what is there of a file that is cut off.
    uncertainty
        Also write maps of several passes, and the margins.
    margin
        Level of the margins; None takes the usual one, and draws none where the model has none of it.
    """

    threshold: float | None = None
    lesions: Lesions = "largest"
    tta: bool = False
    save: tuple[str, ...] = ("mask", "overlay")
    max_megapixels: float = 100.0
    allow_truncated: bool = False
    uncertainty: bool = False
    margin: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.0 < self.threshold < 1.0:
            raise UsageError(f"--threshold must lie between 0 and 1, got {self.threshold}")
        if self.lesions not in ("largest", "all"):
            raise UsageError(f"--lesions: unknown value '{self.lesions}'", hint="largest or all")
        if not 0 < self.max_megapixels <= 10_000:
            raise UsageError(f"--max-megapixels must lie between 0 and 10000, got {self.max_megapixels}")

    def as_dict(self) -> dict[str, Any]:
        """The options as plain JSON values."""
        return {**asdict(self), "save": list(self.save)}


DEFAULTS = BatchOptions()


def settle_margin(options: BatchOptions, model: Model) -> BatchOptions:
    """The options with the level of the margins that are drawn; None where maps alone are possible.

    Raises
    ------
    ModelError
        A level is asked for and nothing was fitted for the model.
    UsageError
        The model has no margin at the level.
    """
    if options.margin is None and not (options.uncertainty and no_margins(model.trust)):
        options = replace(options, margin=DEFAULT_ALPHA)
    if options.uncertainty and options.margin is not None:
        check_margins(model.trust, options.margin, model.card.name)
    return options


def describe_model(model: Model) -> dict[str, Any]:
    """What tells one model from another: name, version, variant, runtime, hashes of network file and card.

    The card has the threshold and the post-processing: with the same network it can give other masks. So can
    another runtime.
    """
    card = model.card
    return {
        "name": card.name,
        "version": card.version,
        "variant": model.variant,
        "runtime": model.session.runtime,
        "sha256": model.sha256,
        "card_sha256": hashlib.sha256(card.to_json().encode()).hexdigest(),
    }


def open_segmenter(
    model: Model,
    described: dict[str, Any],
    out: Path,
    options: BatchOptions,
    encoders: Sequence[Encoder] = (),
) -> Segmenter:
    """What segments one image of the batch, in this process or in one that was sent `model`.

    Raises
    ------
    UsageError
        LabelMe or DICOM files are wanted and nothing makes them.
    ModelError
        `model` was loaded again in a new process and is no longer the one that was `described`.
    """
    if not encoders and set(options.save) & set(ENCODED_KINDS):
        raise UsageError("LabelMe and DICOM results are not written this way", hint="leave --engine ray away")
    if describe_model(model) != described:
        raise ModelError("the bundle was changed while the batch began", file=model.bundle.path)
    opinions = open_opinions(model) if options.uncertainty else None
    return Segmenter(model, out, options, opinions=opinions, encoders=encoders)
