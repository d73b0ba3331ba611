"""MODEL_CARD.md, generated from ``card.json`` and evaluations so that no figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermseg.inference.card import Metric, ModelCard
from dermseg.report.card_sections import evaluation_sections, markdown_table


def render_model_card(
    card: ModelCard,
    evaluations: Mapping[str, Mapping[str, Any]] | None = None,
    pictures: Mapping[str, str] | None = None,
) -> str:
    """The card of a bundle as Markdown.

    Parameters
    ----------
    card
        Of the bundle, with its metrics.
    evaluations, pictures
        For the sections on robustness, groups of images and failures: see ``card_sections``.
    """
    variant = card.variants[card.default_variant]
    p, q = card.preprocessing, card.postprocessing
    parts = [
        f"# Model card: {card.name} (version {card.version})",
        card.summary,
        f"Generated from `card.json` of the bundle, created {card.created}. Licence: {card.licence}.",
        "## Use",
        card.intended_use,
        *(f"- {line}" for line in card.limitations),
        "## Network",
        f"`{card.architecture}`, {card.parameters:,} parameters, {variant.bytes / 1e6:.1f} MB "
        f"({variant.precision}). sha256 `{variant.sha256}`.",
        f"An image is stretched to {p.width} x {p.height} pixels ({p.resize}), scaled to [0, 1] and "
        f"normalised with mean {list(p.mean)} and deviation {list(p.std)}. A pixel is lesion where its "
        f"probability is at least {q.threshold:.4g}. Largest component kept: {_yes(q.keep_largest)}; "
        f"holes filled: {_yes(q.fill_holes)}; smoothing radius: {q.smooth_radius:g} of the side.",
        "## Results",
        *((results_table(card.metrics), _PROTOCOL) if card.metrics else ("Not evaluated.",)),
        *(f"- {m.dataset}: {m.protocol}" for m in card.metrics),
        evaluation_sections(evaluations or {}, pictures),
        "## Training data",
        _data(card.training.get("data", [])),
        "## Recipe",
        *(f"- {key.replace('_', ' ')}: {card.training[key]}" for key in _RECIPE if key in card.training),
        "## Export",
        _parity(variant.parity or {}),
        "## Threshold and post-processing",
        f"Chosen on {card.training.get('threshold_chosen_on', 'validation images')}; objective is the mean "
        "of Dice, Jaccard and thresholded Jaccard, each data set counting the same.",
        _trials(card.training.get("postprocessing_trials", [])),
    ]
    return "\n\n".join(_join_lists(parts)) + "\n"


_PROTOCOL = (
    "Per image, at the masks' own resolution; means with 95 % t-intervals over patients, lesions or groups "
    "of near-duplicates, where these are known. Failed: Jaccard below 0.65."
)
_RECIPE = (
    "initialisation",
    "weights",
    "teachers",
    "optimizer",
    "loss",
    "epochs",
    "phases",
    "batch_size",
    "seed",
)


def _join_lists(parts: list[str]) -> list[str]:
    """Consecutive list items become one paragraph."""
    out: list[str] = []
    for part in parts:
        if part.startswith("- ") and out and out[-1].startswith("- "):
            out[-1] += f"\n{part}"
        elif part:
            out.append(part)
    return out


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _interval(value: Any) -> str:
    if not isinstance(value, dict):
        return "-" if value is None else f"{value:.3f}"
    interval = value.get("ci95_clustered", value.get("ci95"))  # cards of other programs may have one only
    around = "" if interval is None else f" ({interval[0]:.3f}-{interval[1]:.3f})"
    return f"{value['mean']:.3f}{around}"


def results_table(metrics: Sequence[Metric]) -> str:
    """What a model reached, as Markdown: one row per data set, means with their intervals."""
    rows = []
    for metric in metrics:
        values = metric.model_dump()
        measured = [_interval(values.get(k)) for k in ("dice", "jaccard", "threshold_jaccard")]
        failed = values.get("failed_below_065")
        rows.append(
            [metric.dataset, str(metric.n), *measured, "-" if failed is None else f"{100 * failed:.1f} %"]
        )
    return markdown_table(["data", "images", "Dice", "Jaccard", "thresholded Jaccard", "failed"], rows)


def _data(data: list[dict[str, Any]]) -> str:
    rows = [
        [
            str(d["dataset"]),
            str(d["split"]),
            f"{d['images']:,}",
            f"{d['per_epoch']:,}",
            ", ".join(f"{name} ({n:,})" for name, n in d["licences"].items()),
        ]
        for d in data
    ]
    return markdown_table(["data set", "split", "images", "per epoch", "licences"], rows)


def _parity(parity: dict[str, Any]) -> str:
    if not parity:
        return "Not compared."
    before = parity.get("dice_reference", parity.get("dice_torch"))  # the latter in cards of older versions
    if before is None:
        return (
            f"Against {parity.get('reference', 'the original')}: largest difference of the probability "
            f"{parity['max_difference']:.5f}."
        )
    return (
        f"ONNX against torch on {parity['images']} validation images: largest difference of the probability "
        f"{parity['max_difference']:.5f}, mean {parity['mean_difference']:.7f}, "
        f"{100 * parity['flipped_pixels']:.4f} % of mask pixels flip, Dice {before:.5f} -> "
        f"{parity['dice']:.5f}."
    )


def _trials(trials: list[dict[str, Any]]) -> str:
    settings = ("step", "threshold", "keep_largest", "fill_holes", "smooth_radius")
    keys = (*settings, "dice", "jaccard", "threshold_jaccard", "objective")
    return markdown_table([k.replace("_", " ") for k in keys], [[str(t[k]) for k in keys] for t in trials])
