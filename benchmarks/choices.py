"""README's table of what a user can choose: ``accurate``, the default with and without averaging, ``fast``.

    DERMSEG_RUNS=... DERMSEG_DATA=... python benchmarks/choices.py [--isic BUNDLE]

Each choice is evaluated on the test sets of the model card, unless that has been done; a look at a test split
is a line in ``benchmarks/test-evaluations.csv``. The network's work is in multiplications beside those of the
default. Writes ``results/choices.json``. The bundle without HAM10000
is not part of the package: where it has not been built, its row of the last time stays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from common import RESULTS, ROOT, data_folder, describe, indexes, runs_folder, save, write_section
from dermseg.export.rebuild import rebuild
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import ModelCard
from dermseg.inference.partner import find_partner
from model_card import BUNDLE, evaluated, kept_under, test_sets

RESULT = RESULTS / "choices.json"
ISIC = "built by `make model DATA=isic`: has not seen HAM10000, for those whom its licence excludes"


@dataclass(frozen=True)
class Choice:
    """One row: the bundle, further words of the command, and what the row says."""

    bundle: Path
    words: tuple[str, ...]
    text: str
    views: int = 1


def choices(isic: Path) -> list[Choice]:
    """The rows, the most careful first; that of `isic` where it has been made."""
    default, fast, accurate = BUNDLE, BUNDLE.with_name("fast"), BUNDLE.with_name("accurate")
    variant = load_bundle(default).card.variants.get("int8")
    rows = [
        Choice(accurate, ("--tta",), "`--model accurate --tta`", views=8),
        Choice(
            accurate,
            (),
            "`--model accurate`: TinyViT of MobileSAM at {size} px, averaged with the default "
            "(`make model BUNDLE=accurate`)",
        ),
        Choice(default, ("--tta",), "`--model default --tta`", views=8),
        Choice(default, (), "`--model default`"),
        Choice(fast, (), "`--model fast`: the same network at {size} px (`make model BUNDLE=fast`)"),
        Choice(isic, (), ISIC),
    ]
    if variant is not None:
        text = f"`--variant int8`: the default in {variant.bytes / 1e6:.1f} MB"
        rows.insert(4, Choice(default, ("--variant", "int8"), text))
    return [row for row in rows if row.bundle.exists()]


def folder(choice: Choice, card: ModelCard, runs: Path) -> Path:
    """Where the evaluations of a choice are kept; a plain model's are those of its card."""
    kept = kept_under(card, runs)
    words = [*choice.words, *(card.variants[name].sha256 for name in choice.words if name in card.variants)]
    return kept / f"choice-{hashlib.sha256(repr(words).encode()).hexdigest()[:8]}" if words else kept


@cache
def multiplications(bundle: Path) -> int:
    """Of one image at the size that the network was made for, those of its partner with it."""
    loaded = load_bundle(bundle)
    size = loaded.card.preprocessing
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        rebuild(loaded)(torch.zeros(1, 3, size.height, size.width))
    partner = loaded.card.variant().partner
    others = multiplications(find_partner(loaded, partner).path) if partner else 0
    return counter.get_total_flops() // 2 + others


def main() -> None:
    """Evaluate what has not been evaluated, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--isic", type=Path, help="default dist/isic, where make model puts it")
    args = parser.parse_args()
    runs, data = runs_folder(), data_folder()
    indexes(runs, "isic", "ham", "ph2")
    usual = multiplications(BUNDLE)
    rows: list[dict[str, Any]] = []
    for choice in choices(args.isic or ROOT / "dist" / "isic"):
        card = load_bundle(choice.bundle).card
        kept, size = folder(choice, card, runs), card.preprocessing
        dice = {}
        for test in test_sets(data, runs):
            found = evaluated(kept / test.index.stem, choice.bundle, test.index, test.split, *choice.words)
            dice[test.name] = found["dice"]["mean"]
        work = round(choice.views * multiplications(choice.bundle) / usual, 2)
        rows.append({"choice": choice.text.format(size=size.height), "dice": dice, "work": work})
    if all(row["choice"] != ISIC for row in rows):
        rows += [row for row in json.loads(RESULT.read_text("utf-8"))["rows"] if row["choice"] == ISIC]
    names = list(rows[0]["dice"])
    lines = [f"| Dice | {' | '.join(names)} | network's work |", f"|---|{'---:|' * (len(names) + 1)}"]
    for row in rows:
        values = " | ".join(f"{row['dice'][name]:.3f}" for name in names)
        lines.append(f"| {row['choice']} | {values} | {row['work']:g} |")
    save({**describe(), "rows": rows}, RESULT)
    write_section(ROOT / "README.md", "choices", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
