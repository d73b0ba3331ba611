"""Evaluate a bundle on every test set and write its model card: the last step of ``make model``.

    python benchmarks/model_card.py [BUNDLE] --data DIR [--runs DIR]

Writes the metrics into the bundle, and ``MODEL_CARD.md``, the drawings of its worst images (outlines only,
no photograph) and ``benchmarks/results/model_card.json``, from which the card can be rendered again. Every
figure comes from a ``dermseg evaluate`` that is shown as it runs. An evaluation is kept under
``RUNS/model-card/`` by what was evaluated (model, pre- and post-processing) and not repeated; each look at a
test split is one line in ``benchmarks/test-evaluations.csv``.

Robustness is 71 times the work of an evaluation, so it is measured on 50 images of ISIC 2018 and 50 of
HAM10000: one image of each patient, lesion or group of near-duplicates of the test split, drawn by hash.

``--split val --limit 8 --output DIR`` tries it out: test splits and the bundle stay untouched.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ROOT, dermseg, runs_folder, write_section
from dermseg.data.index import IndexRow, read_index, write_index
from dermseg.evaluation.evaluate import select_split
from dermseg.evaluation.failures import worst_images
from dermseg.evaluation.figure import draw_panels
from dermseg.evaluation.metrics import JACCARD_THRESHOLD
from dermseg.evaluation.output import METRICS_FILE, PER_IMAGE
from dermseg.evaluation.table import read_per_image
from dermseg.export.write import add_metrics
from dermseg.files import atomic_write
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import Metric, ModelCard
from dermseg.inference.predictor import load_model
from dermseg.report.card_sections import CARD_STRATA
from dermseg.report.model_card import render_model_card, results_table
from dermseg.report.outlines import draw_outlines

BUNDLE = ROOT / "src" / "dermseg" / "bundles" / "default"
TEST_LOG = ROOT / "benchmarks" / "test-evaluations.csv"
CARD, DRAWINGS, FIGURES = "MODEL_CARD.md", "docs/images", "benchmarks/results/model_card.json"
ROBUSTNESS_IMAGES = 50
# What README calls the rows of the card's results.
IN_WORDS = {
    "ISIC 2018": "ISIC 2018 Task 1 images, official ISIC 2017 test ids, full frame",
    "HAM10000": "HAM10000, lesions not in training",
    "PH2": "PH2, never trained on",
    "synthetic": "generated images, never trained on",
}
KEPT = ("n", "dice", "jaccard", "threshold_jaccard", "sensitivity", "specificity", "failed_below_065")


@dataclass(frozen=True)
class TestSet:
    """One row of the card's results; ``detailed`` adds sections, ``metadata`` sorts images into groups."""

    name: str
    index: Path
    split: str
    metadata: Path | None = None
    detailed: bool = False


def test_sets(data: Path, runs: Path, *, there: bool = False) -> list[TestSet]:
    """What the card reports on, with ``there`` only sets whose index has been made.

    The generated pictures are made where they are missing.
    """
    index, synthetic = runs / "index", runs / "synthetic-200"
    if not (synthetic / "index.csv").exists():
        dermseg("data", "synth", "-n", 200, "--seed", 1_000_000, "-o", synthetic)
    sets = [
        TestSet("ISIC 2018", index / "isic.csv", "test", data / "isic2018_metadata.csv", detailed=True),
        TestSet("HAM10000", index / "ham.csv", "test", data / "HAM10000_metadata.csv", detailed=True),
        TestSet("PH2", index / "ph2.csv", "test"),
        TestSet("synthetic", synthetic / "index.csv", "all"),
    ]
    return [test for test in sets if test.index.exists()] if there else sets


def subset(rows: list[IndexRow], many: int) -> list[IndexRow]:
    """So many rows, one of each group, drawn by the hash of their names: the same on every machine."""
    groups: dict[str, IndexRow] = {}
    for row in sorted(rows, key=lambda row: hashlib.sha256(row.image_id.encode()).digest()):
        groups.setdefault(row.group or row.subject or row.lesion or row.image_id, row)
    return list(groups.values())[:many]


def subset_index(index: Path, split: str, many: int) -> Path:
    """Beside the index, one of `subset` of a split; the file says so in its name."""
    chosen = subset(select_split(read_index(index), split)[0], many)
    path = index.with_name(f"{index.stem}-{split}-{many}.csv")
    write_index(chosen, path)
    return path


def evaluated(out: Path, bundle: Path, index: Path, split: str, *more: object) -> dict[str, Any]:
    """The ``metrics.json`` of an evaluation, which is run unless it is there."""
    if not (out / METRICS_FILE).exists():
        logged = ("--log-test", TEST_LOG) if split in ("test", "all") else ()
        dermseg(
            *("evaluate", "--data", index, "--split", split, "--model", bundle, "-o", out),
            *(*logged, *more),
        )
    found: dict[str, Any] = json.loads((out / METRICS_FILE).read_text("utf-8"))
    return found


def kept_under(card: ModelCard, runs: Path) -> Path:
    """Folder for the evaluations of this model as it is set now."""
    variant = card.variants[card.default_variant]
    what = [variant.sha256, card.preprocessing.model_dump_json(), card.postprocessing.model_dump_json()]
    what += [variant.partner.sha256] if variant.partner else []
    return runs / "model-card" / hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]


def metric(name: str, split: str, found: dict[str, Any]) -> Metric:
    """A row of the card's results."""
    known = {"dataset": name, "split": split, "protocol": found["protocol"]["text"]}
    return Metric.model_validate(known | {key: found[key] for key in KEPT})


def section_figures(found: dict[str, Any], spoilt: dict[str, Any]) -> dict[str, Any]:
    """What the card's sections need of the two evaluations of a data set."""
    kept = {key: found[key] for key in ("n", "dice", "model", "protocol", "skin_tone", "worst")}
    strata = [stratum for stratum in found["strata"] if stratum["name"] in CARD_STRATA]
    drawn = "one of each patient, lesion or group of near-duplicates, drawn by hash"
    robustness = spoilt["robustness"] | {"protocol": f"{spoilt['protocol']['text']}; {drawn}"}
    return kept | {"strata": strata, "robustness": robustness}


def drawing(bundle: Path, index: Path, per_image: Path) -> str:
    """The worst images of an evaluation as outlines."""
    worst = [s for s in worst_images(read_per_image(per_image)) if s.metrics["jaccard"] < JACCARD_THRESHOLD]
    model = load_model(bundle)
    return draw_outlines(draw_panels(lambda source: model.segment(source).mask, read_index(index), worst))


def write_card(
    bundle: Path, data: Path, runs: Path, output: Path, *, split: str = "test", limit: int | None = None
) -> list[Metric]:
    """Evaluate what has not been evaluated, and write card, drawings and figures below ``output``.

    With another split than test, or a limit, the bundle is left as it is.
    """
    card = load_bundle(bundle).card
    kept = kept_under(card, runs)
    trial = split != "test" or limit is not None
    metrics, figures, pictures = [], {}, {}
    for test in test_sets(data, runs, there=output != ROOT):
        which = test.split if test.split == "all" else split
        index, many = test.index, ROBUSTNESS_IMAGES
        if trial:
            if not test.detailed:
                continue
            index, many = subset_index(index, which, limit or 20), min(4, limit or 4)
        out = kept / index.stem
        groups = () if test.metadata is None else ("--metadata", test.metadata)
        found = evaluated(out, bundle, index, which, *groups)
        metrics.append(metric(test.name, which, found))
        if not test.detailed:
            continue
        fewer = subset_index(test.index, which, many)
        spoilt = evaluated(kept / f"{fewer.stem}-robustness", bundle, fewer, which, "--robustness")
        figures[test.name] = section_figures(found, spoilt)
        if found["worst"]:
            picture = f"{DRAWINGS}/failures-{test.index.stem}.svg"
            (output / picture).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(output / picture, drawing(bundle, index, out / PER_IMAGE).encode())
            pictures[test.name] = picture
    card = card.model_copy(update={"metrics": metrics}) if trial else add_metrics(bundle, card, metrics)
    (output / FIGURES).parent.mkdir(parents=True, exist_ok=True)
    result = {"schema_version": 1, "evaluations": figures, "pictures": pictures}
    atomic_write(output / FIGURES, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    atomic_write(output / CARD, render_model_card(card, figures, pictures).encode())
    if output == ROOT:
        write_section(ROOT / "README.md", "accuracy", readme_section(card))
    return metrics


def readme_section(card: ModelCard) -> str:
    """What README says of the default model's accuracy."""
    shipped = card.variants[card.default_variant]
    smaller = f"; {card.variants['int8'].bytes / 1e6:.1f} MB as int8" if "int8" in card.variants else ""
    rows = [row.model_copy(update={"dataset": IN_WORDS[row.dataset]}) for row in card.metrics]
    return (
        f"Bundled `{card.name}` (version {card.version}, {card.parameters / 1e6:.2f} M parameters, "
        f"{shipped.bytes / 1e6:.1f} MB{smaller}; {card.preprocessing.height} px input). Means per image with "
        "95 % intervals over patients, lesions or groups of near-duplicates, at the masks' own size; "
        f"failed is Jaccard below 0.65. `make model` ends with these figures.\n\n{results_table(rows)}"
    )


def main() -> None:
    """Write the card, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?", default=BUNDLE)
    parser.add_argument("--data", type=Path, default=os.environ.get("DERMSEG_DATA"))
    parser.add_argument("--runs", type=Path, default=runs_folder())
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="images of each set")
    parser.add_argument("--output", type=Path, default=ROOT, help="folder for the card; default: here")
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data or DERMSEG_DATA must name the folder with the data sets")
    if args.output == ROOT and (args.split != "test" or args.limit is not None):
        parser.error("a trial needs --output: the card in the repository is that of the test splits")
    if args.output == ROOT and args.bundle.resolve() != BUNDLE:
        parser.error("another bundle needs --output: the card in the repository is that of the default model")
    metrics = write_card(
        args.bundle, Path(args.data), args.runs, args.output, split=args.split, limit=args.limit
    )
    for row in metrics:
        print(f"{row.dataset}: n {row.n}, Dice {row.dice}")


if __name__ == "__main__":
    main()
