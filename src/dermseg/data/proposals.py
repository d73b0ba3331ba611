"""Which LabelMe files are a model's proposals that nobody has worked on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from dermseg.data.labelme import Annotation, Shape

PROPOSED = "proposed"  # the flag of a file that a model wrote
FACTS = "dermseg"  # the field with what is known of the proposal
_WRITTEN = "shapes_sha256"  # there: which shapes the model wrote


def is_proposal(annotation: Annotation) -> bool:
    """Whether nobody has worked on a LabelMe file since the model wrote it.

    The flag ``proposed`` says so, and that the shapes are still those it was written with: LabelMe keeps the
    flag when a person has corrected and saved the outline, and few would think of unticking it.
    """
    flags, facts = annotation.extra.get("flags"), annotation.extra.get(FACTS)
    if not (isinstance(flags, dict) and flags.get(PROPOSED)):
        return False
    written = facts.get(_WRITTEN) if isinstance(facts, dict) else None
    return written is None or written == _digest(annotation.shapes)


def as_proposal(annotation: Annotation) -> Annotation:
    """The annotation as a model's proposal, which ``is_proposal`` finds until a person changes a shape."""
    flags, facts = annotation.extra.get("flags"), annotation.extra.get(FACTS)
    extra = {
        **annotation.extra,
        "flags": {**(flags if isinstance(flags, dict) else {}), PROPOSED: True},
        FACTS: {**(facts if isinstance(facts, dict) else {}), _WRITTEN: _digest(annotation.shapes)},
    }
    return replace(annotation, extra=extra)


def _digest(shapes: Iterable[Shape]) -> str:
    """Of what is drawn; programs that only save a file again change nothing of it."""
    digest = hashlib.sha256()
    for shape in shapes:
        size = None if shape.mask is None else shape.mask.shape
        points = (shape.points.round(3) + 0.0).tolist()
        digest.update(json.dumps([shape.label, shape.kind, shape.group, points, size]).encode())
        if shape.mask is not None:
            digest.update(np.packbits(shape.mask).tobytes())
    return digest.hexdigest()
