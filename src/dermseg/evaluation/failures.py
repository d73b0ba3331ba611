"""The images that went wrong, and how: chosen and described from the per-image table alone."""

from __future__ import annotations

from dermseg.evaluation.appearance import skin_tone
from dermseg.evaluation.counts import Counts
from dermseg.evaluation.metrics import JACCARD_THRESHOLD, dice, jaccard, precision, sensitivity
from dermseg.evaluation.strata import number
from dermseg.evaluation.table import Evaluation, ImageScore

_SAME = 0.8  # two shares that differ by less than this factor are called the same
_LOW_CONTRAST = 12.0  # delta E*ab below which a lesion hardly stands out
_SMALL = 0.02
_SHOWN = 12


def worst_images(evaluation: Evaluation) -> list[ImageScore]:
    """The 12 images with the lowest Jaccard index, worst first; of several references the first decides."""
    first = {score.key: score for score in reversed(evaluation.scores)}
    # The name breaks ties, so that the same table always gives the same list.
    return sorted(first.values(), key=lambda score: (jaccard(score.counts), score.key))[:_SHOWN]


def describe_failure(counts: Counts) -> str:
    """What is wrong with an outline, in a few words that follow from its pixel counts."""
    if jaccard(counts) >= JACCARD_THRESHOLD:
        return "close to the reference"
    if not counts.reference:
        return "an outline where the reference has none"
    if not counts.predicted:
        return "nothing found"
    if not counts.tp:
        return "another place outlined"
    missed, spilt = 1 - sensitivity(counts), 1 - precision(counts)
    if spilt < _SAME * missed:
        return f"too small: {missed:.0%} of the lesion missed"
    if missed < _SAME * spilt:
        return f"too large: {counts.predicted / counts.reference:.1f} times the reference"
    return f"shifted: {missed:.0%} of the lesion missed, {spilt:.0%} of the outline beside it"


def describe_difficulty(score: ImageScore) -> str:
    """What is known to make the image hard, in a few words; empty if nothing is."""
    facts = score.facts
    parts = []
    if facts.get("reference_touches_border") in (True, "true"):
        parts.append("cut by the frame")
    area, contrast, ita = (number(facts.get(k)) for k in ("reference_area_fraction", "contrast", "ita"))
    if area is not None and area < _SMALL:
        parts.append("small")
    if contrast is not None and contrast < _LOW_CONTRAST:
        parts.append("low contrast")
    if ita is not None and skin_tone(ita) in ("tan", "brown", "dark"):
        parts.append(f"{skin_tone(ita)} skin")
    return ", ".join(parts)


def describe_image(score: ImageScore) -> str:
    """A caption: how far off, what is wrong, and what is known to make the image hard."""
    parts = (
        f"Jaccard {jaccard(score.counts):.2f}",
        describe_failure(score.counts),
        describe_difficulty(score),
    )
    return "; ".join(part for part in parts if part)


def failure_rows(evaluation: Evaluation) -> list[dict[str, object]]:
    """`worst_images` as they stand in JSON: only those that failed, so the list may be empty."""
    return [
        {
            "image_id": score.image_id,
            "dataset": score.dataset,
            "dice": dice(score.counts),
            "jaccard": jaccard(score.counts),
            "what": describe_failure(score.counts),
            "difficulty": describe_difficulty(score),
            "confidence": number(score.facts.get("confidence")),
        }
        for score in worst_images(evaluation)
        if jaccard(score.counts) < JACCARD_THRESHOLD
    ]
