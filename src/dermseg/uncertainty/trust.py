"""``trust.json``: everything that was fitted on top of a network, as data that is checked before it is used.

The temperature is not in here: it decides which probabilities come out, so it is part of the card's
post-processing.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dermseg.errors import UsageError
from dermseg.inference.bundle import Bundle
from dermseg.schema import Stored, read_attached
from dermseg.uncertainty.predicted_dice import DiceModel

ATTACHMENT, FILE = "trust", "trust.json"
FIT_HINT = "dermseg uncertainty fit BUNDLE --data INDEX fits it"


class Line(Stored):
    """How far the outer or inner line lies from the outline, for each level (see ``margins``).

    Parameters
    ----------
    alphas, lambdas
        Levels, rising, and the lambda of each; None where the images allow no promise at that level.
    """

    alphas: list[float] = Field(min_length=1)
    lambdas: list[float | None]

    @model_validator(mode="after")
    def _paired(self) -> Line:
        if len(self.alphas) != len(self.lambdas):
            raise ValueError(f"{len(self.alphas)} alphas but {len(self.lambdas)} lambdas")
        return self

    def at(self, alpha: float) -> float:
        """The lambda for a level.

        Raises
        ------
        UsageError
            The level is not in the table, or cannot be promised.
        """
        table = {round(a, 4): v for a, v in zip(self.alphas, self.lambdas, strict=True)}
        found = table.get(round(alpha, 4))
        if found is None:
            possible = [a for a, v in table.items() if v is not None]
            span = f"{min(possible):g} to {max(possible):g} in steps of 0.01" if possible else "none"
            raise UsageError(f"this model has no margin at level {alpha:g}", hint=f"possible: {span}")
        return found


class Trust(Stored):
    """What a bundle knows about how far it can be believed.

    Parameters
    ----------
    fitted
        When, on which images, with which figures; for the reader.
    dice
        Predicted Dice from the probability map.
    outer, inner
        The two lines of the margin.
    """

    schema_version: Literal[1] = 1
    fitted: dict[str, Any] = Field(default_factory=dict)
    dice: DiceModel
    outer: Line
    inner: Line

    def possible(self, alpha: float) -> bool:
        """Whether there are margins at this level."""
        try:
            self.outer.at(alpha), self.inner.at(alpha)
        except UsageError:
            return False
        return True

    def to_json(self) -> str:
        """The text of ``trust.json``."""
        return self.model_dump_json() + "\n"


def load_trust(bundle: Bundle) -> Trust | None:
    """What was fitted for a bundle; None where nothing was.

    Raises
    ------
    ModelError
        The file is not what the card says, or not of this schema.
    """
    return read_attached(Trust, bundle, ATTACHMENT, FILE, hint=FIT_HINT)
