"""A bundle that works together with another of the package: its threshold is that of their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dermseg.data.index import IndexRow
from dermseg.errors import UsageError
from dermseg.export.parity import lesion_probability, run_session
from dermseg.export.tune import Labelled, tune
from dermseg.export.write import open_folder, write_card
from dermseg.images.packed import PackedMask
from dermseg.inference.bundle import Bundle, bundled_names, is_bundled_name, load_bundle
from dermseg.inference.card import ModelCard, Partner
from dermseg.inference.runtimes import open_session


def load_partner(name: str, variants: Sequence[str], *, end_to_end: bool = False) -> Bundle:
    """The bundle of the package that a new one of these variants shall work with.

    Raises
    ------
    UsageError
        The package has none of this name (a file of the user's could be gone tomorrow), or a variant is no
        ONNX file that gives logits.
    """
    if not is_bundled_name(name):
        raise UsageError(
            f"--partner takes a bundle inside the package, not '{name}'",
            hint=f"one of {', '.join(bundled_names())}",
        )
    if alone := [*(["openvino"] if "openvino" in variants else []), *(["end-to-end"] if end_to_end else [])]:
        raise UsageError(
            f"{' and '.join(alone)} cannot have a partner: such files run alone", hint="leave one of both out"
        )
    return load_bundle(name)


def add_partner(
    path: Path,
    partner: Bundle,
    rows: Sequence[IndexRow],
    inputs: NDArray[np.float32],
    references: Sequence[PackedMask],
    *,
    report: Callable[[str], None] = lambda _: None,
) -> ModelCard:
    """Let a bundle ask its partner too, and choose threshold and post-processing of both together.

    Parameters
    ----------
    path
        The folder of the bundle; parity and latency in its card stay those of its own network.
    rows, inputs, references
        Validation images: as they are in the index, ``float32 (N, 3, H, W)`` as the network sees them, and
        their masks.

    Raises
    ------
    ModelError
        The two cannot work together, see ``inference.partner``.
    """
    bundle = open_folder(path)
    card = bundle.card
    name = partner.card.default_variant
    stored = Partner(bundle=partner.path.name, variant=name, sha256=partner.card.variant(name).sha256)
    variants = {key: v.model_copy(update={"partner": stored}) for key, v in card.variants.items()}
    joined = Bundle(bundle.path, card.model_copy(update={"variants": variants}), bundle.prefix)
    logits = run_session(open_session(joined, card.default_variant), inputs)
    items = [
        Labelled(row.dataset, p, reference)
        for row, p, reference in zip(rows, lesion_probability(logits), references, strict=True)
    ]
    postprocessing, trials = tune(items, report=report)
    changed = {
        "postprocessing": postprocessing,
        "training": {**card.training, "postprocessing_trials": trials},
    }
    return write_card(bundle.path, joined.card.model_copy(update=changed))
