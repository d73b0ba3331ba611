"""Fit the input gate of a bundle and write it into the bundle: a step of ``make model``.

    python benchmarks/fit_gate.py BUNDLE [--runs DIR]

Takes the indexes that ``benchmarks/make_model.py`` makes. Two minutes on two idle CPUs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dermseg.export.fit_gate import fit_bundle_gate

INDEXES = ("isic", "ham", "crop512")


def main() -> None:
    """Fit and say what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    home = Path.home() / "dermseg-runs"
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=Path, default=Path(os.environ.get("DERMSEG_RUNS", home)))
    args = parser.parse_args()
    indexes = [args.runs / "index" / f"{name}.csv" for name in INDEXES]
    card = fit_bundle_gate(args.bundle, indexes, report=lambda text: print(text, flush=True))
    print(f"{args.bundle}: {card.attachments['gate'].bytes} bytes of gate.json")


if __name__ == "__main__":
    main()
