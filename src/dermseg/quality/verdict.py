"""What the gate says about an image: findings with a reason and a remedy in plain words, and the verdict.

The verdict is the worst of the findings. ``accept``: nothing stands against the outline. ``review``: a person
should look at image and outline before either is used. ``reject``: the image is not fit for the purpose; the
outline is there, but should not be used. Nothing here says anything about malignancy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["accept", "review", "reject"]
LEVELS: tuple[Level, ...] = ("accept", "review", "reject")

# check -> what is the matter, and what to do about it
WORDS: dict[str, tuple[str, str]] = {
    "unfamiliar": ("not like the dermoscopic images the model knows", "check the outline"),
    "blur": ("out of focus", "retake with the lesion in focus and the camera held still"),
    "dark": ("too dark", "retake with more light"),
    "bright": ("overexposed, parts are plain white", "retake with less light or without flash"),
    "cast": ("strong colour cast", "retake with neutral light or the camera's white balance set"),
    "hair": ("hair lies over the skin", "part or clip the hair and retake"),
    "ruler": ("a ruler or scale marks are in view", "keep them away from the lesion"),
    "bubbles": ("bubbles or reflections in the contact fluid", "press them out and retake"),
    "vignette": ("dark corners take up much of the image", "move closer or zoom in"),
    "small_image": ("too few pixels", "retake at a higher resolution"),
    "small_lesion": ("the lesion is very small in the image", "move closer"),
    "border": (
        "the lesion reaches the edge of the image",
        "retake with skin all around it, or take it as cut off",
    ),
    "no_lesion": ("no lesion was found", "check that the lesion is in view"),
    "several": ("several lesions", "take one image of each, or keep them apart (lesions: all)"),
    "uncertain": ("the outline is uncertain", "check the outline"),
}
# Where the check rejects, its words are stronger.
REJECT_WORDS: dict[str, tuple[str, str]] = {
    "unfamiliar": (
        "not a picture of a skin lesion as far as the model can tell",
        "give a photograph of one lesion",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is the matter with an image.

    Attributes
    ----------
    check
        Its name, a key of `WORDS`.
    level
        What it alone would lead to; ``accept`` for what is only worth knowing.
    value, limit
        What was measured, and the limit that it crossed.
    """

    check: str
    level: Level
    value: float
    limit: float

    @property
    def reason(self) -> str:
        """What is the matter, in plain words."""
        return self._words[0]

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return self._words[1]

    @property
    def text(self) -> str:
        """Reason and remedy in one line."""
        return f"{self.reason}: {self.remedy}"

    @property
    def _words(self) -> tuple[str, str]:
        return (
            REJECT_WORDS.get(self.check, WORDS[self.check]) if self.level == "reject" else WORDS[self.check]
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "check": self.check,
            "level": self.level,
            "reason": self.reason,
            "remedy": self.remedy,
            "value": round(self.value, 4),
            "limit": round(self.limit, 4),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings, worst first, and what they come to."""

    findings: tuple[Finding, ...] = ()

    @property
    def level(self) -> Level:
        """``accept``, ``review`` or ``reject``."""
        return self.findings[0].level if self.findings else "accept"

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line for each finding, worst first."""
        return tuple(finding.text for finding in self.findings)

    def with_findings(self, more: Iterable[Finding]) -> Verdict:
        """The verdict with further findings, such as a doubtful outline."""
        return make_verdict([*self.findings, *more])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"verdict": self.level, "findings": [finding.as_dict() for finding in self.findings]}


def make_verdict(findings: Iterable[Finding]) -> Verdict:
    """A verdict with its findings in order: worst first, else as given."""
    return Verdict(tuple(sorted(findings, key=lambda finding: -LEVELS.index(finding.level))))
