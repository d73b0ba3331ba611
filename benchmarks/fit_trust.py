"""Fit what a bundle knows about its own uncertainty, on the splits that `make model` keeps for it.

    python benchmarks/fit_trust.py BUNDLE [--runs DIR]

A thin cover of ``dermseg uncertainty fit`` that names the indexes; see ``export.fit_trust``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import indexes, runs_folder
from dermseg.export.fit_trust import fit_bundle
from dermseg.inference.bundle import load_bundle
from dermseg.uncertainty.trust import load_trust

INDEXES = ("isic", "ham")


def fit_trust(bundle: Path, runs: Path) -> None:
    """Fit the bundle on the indexes in ``runs/index``."""
    fit_bundle(bundle, indexes(runs, *INDEXES), report=lambda text: print(text, flush=True))


def main() -> None:
    """Fit, and print what was reached on images left out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=Path, default=runs_folder(), help="folder that holds index/")
    args = parser.parse_args()
    fit_trust(args.bundle, args.runs)
    trust = load_trust(load_bundle(args.bundle))
    assert trust is not None
    print(json.dumps({"fitted": trust.fitted, "predicted_dice": trust.dice.figures}, indent=2))


if __name__ == "__main__":
    main()
