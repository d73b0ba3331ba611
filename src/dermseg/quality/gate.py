"""The input gate of a bundle: ``gate.json`` as data that is checked before it is used, and the verdict.

>>> gate = read_gate(bundle)
>>> gate.judge(pixels, size, probability, threshold, features).level

Limits that say what a photograph must be like (light, size, place of the lesion) were set by hand and are
the same for every network; what depends on a network's features is fitted (``export.fit_gate``). All of
them stand in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dermseg.quality.familiar import Familiar, Packed, unpack
from dermseg.quality.measures import Measures, measure
from dermseg.quality.verdict import WORDS, Finding, Level, Verdict, make_verdict
from dermseg.schema import Attached, Stored, read_attached

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

ATTACHMENT, FILE = "gate", "gate.json"
# Checks that every gate has a limit for; those of the heads come on top.
CHECKS = (
    "unfamiliar", "blur", "dark", "bright", "cast", "bubbles", "vignette", "small_image", "small_lesion",
    "border", "no_lesion", "several",
)  # fmt: skip
# What can make the picture of a lesion look like something else.
_SPOILERS = ("small_image", "blur", "dark", "bright", "cast")


class Limit(Stored):
    """From where on a value is noted, asks for review, or rejects; None where it never does.

    ``below`` turns it round: small values are the bad ones.
    """

    note: float | None = None
    review: float | None = None
    reject: float | None = None
    below: bool = False

    def judge(self, check: str, value: float) -> Iterator[Finding]:
        """The finding, if the value crosses a limit."""
        steps: tuple[tuple[Level, float | None], ...] = (
            ("reject", self.reject),
            ("review", self.review),
            ("accept", self.note),
        )
        for level, limit in steps:
            if limit is not None and (value < limit if self.below else value > limit):
                yield Finding(check, level, value, limit)
                return


class Head(Stored):
    """A linear detector on the features; above 0 only in few images that do not have the artefact."""

    weights: Packed
    bias: float

    @cached_property
    def vector(self) -> Floats:
        """The weights, ``float32 (D,)``."""
        return unpack(self.weights)

    def __call__(self, features: Floats) -> float:
        """How much speaks for the artefact in ``float32 (D,)``, in spreads of images without it."""
        return float(features @ self.vector) + self.bias


class Skin(Stored):
    """Mean and spread of a* and b* of the skin in known images."""

    mean: tuple[float, float]
    precision: tuple[tuple[float, float], tuple[float, float]]

    def distance(self, a: float, b: float) -> float:
        """Mahalanobis distance of a skin colour."""
        x = np.array((a, b)) - self.mean
        return float(np.sqrt(x @ np.array(self.precision) @ x))

    def of(self, m: Measures) -> float | None:
        """That of an image's skin; None where the lesion fills the image."""
        return None if m.skin_a is None or m.skin_b is None else self.distance(m.skin_a, m.skin_b)


class Gate(Stored):
    """Everything that a bundle's gate knows.

    Parameters
    ----------
    fitted
        When, on which images, with which figures; for the reader.
    size
        Number of features, D.
    familiar
        The Gaussian of images that show skin; the strangeness is the out-of-distribution score.
    heads
        Detectors of artefacts.
    skin
        Colours of skin.
    limits
        For each check.
    """

    schema_version: Literal[1] = 1
    fitted: dict[str, Any] = Field(default_factory=dict)
    size: int = Field(ge=1)
    familiar: Familiar
    heads: dict[str, Head]
    skin: Skin
    limits: dict[str, Limit]

    @model_validator(mode="after")
    def _sizes_fit(self) -> Gate:
        sizes = {self.familiar.size, *(unpack(head.weights).size for head in self.heads.values())}
        if sizes != {self.size}:
            raise ValueError(f"parts for {sorted(sizes)} features in a gate for {self.size}")
        missing = {*CHECKS, *self.heads} - set(self.limits)
        unknown = {*self.limits, *self.heads} - set(WORDS)
        if missing or unknown:
            raise ValueError(f"limits are missing for {sorted(missing)}, unknown checks {sorted(unknown)}")
        return self

    def judge(
        self,
        pixels: Pixels,
        size: tuple[int, int],
        probability: Floats,
        threshold: float,
        features: Floats | None,
    ) -> Verdict:
        """The verdict on one image.

        Parameters
        ----------
        pixels
            ``uint8 (h, w, 3)`` RGB; may be a reduced decode.
        size
            Height and width of the whole image.
        probability
            ``float32 (a, b)``, the network's map.
        threshold
            The threshold of the outline.
        features
            ``float32 (D,)``, the network's pooled features; None where the runtime gives none: what
            depends on them is then not checked.
        """
        found = list(self._judge_measures(measure(pixels, size, probability, threshold)))
        if features is not None:
            found += self._judge_features(features)
        if any(finding.check == "unfamiliar" and finding.level == "reject" for finding in found):
            found = list(_causes(found))
        return make_verdict(found)

    def _judge_features(self, features: Floats) -> Iterator[Finding]:
        strange = float(self.familiar.strangeness(features[None])[0])
        yield from self.limits["unfamiliar"].judge("unfamiliar", strange)
        for name, head in self.heads.items():
            yield from self.limits[name].judge(name, head(features))

    def _judge_measures(self, m: Measures) -> Iterator[Finding]:
        values: dict[str, float | None] = {
            "small_image": m.short_side,
            "blur": m.blur,
            "dark": m.luma,
            "bright": m.white_share,
            "vignette": m.vignette_share,
            "bubbles": m.glare_share,
            "cast": self.skin.of(m),
        }
        if m.lesions:
            values |= {"small_lesion": m.lesion_share, "border": m.border_share, "several": float(m.lesions)}
        else:
            values |= {"no_lesion": 1.0}
        for check, value in values.items():
            if value is not None:
                yield from self.limits[check].judge(check, float(value))

    def to_json(self) -> str:
        """The text of ``gate.json``."""
        return self.model_dump_json() + "\n"


def _causes(found: Iterable[Finding]) -> Iterator[Finding]:
    """What may have made an image unfamiliar, first; hair and rulers in what is no skin are no findings."""
    for finding in found:
        if finding.check in _SPOILERS:
            yield replace(finding, level="reject")
        elif finding.check == "unfamiliar":
            yield finding


def read_gate(bundle: Attached) -> Gate | None:
    """The gate of a bundle; None where none was fitted.

    Raises
    ------
    ModelError
        The file is not what the card says, or not of this schema.
    """
    hint = "the bundle is damaged; fetch or export it again"
    return read_attached(Gate, bundle, ATTACHMENT, FILE, hint=hint)
