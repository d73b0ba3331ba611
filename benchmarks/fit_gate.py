"""Fit the input gate of a bundle and write it into the bundle: a step of ``make model``.

    python benchmarks/fit_gate.py BUNDLE [--runs DIR]

Takes the indexes that ``benchmarks/make_model.py`` makes. Two minutes on two idle CPUs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import indexes, runs_folder
from dermseg.export.fit_gate import fit_bundle_gate

INDEXES = ("isic", "ham", "crop512")


def main() -> None:
    """Fit and say what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=Path, default=runs_folder())
    args = parser.parse_args()
    places = indexes(args.runs, *INDEXES)
    card = fit_bundle_gate(args.bundle, places, report=lambda text: print(text, flush=True))
    print(f"{args.bundle}: {card.attachments['gate'].bytes} bytes of gate.json")


if __name__ == "__main__":
    main()
