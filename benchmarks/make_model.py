"""Rebuild the bundled model from data to card: import, train, export, fit its trust, evaluate, model card.

Every step is a ``dermseg`` command that can be run by hand; a step whose result is there is not repeated,
so the command may be interrupted and run again (``RUN/exported.json`` says what has been exported: without
it, export and fits are done again). Test splits are only looked at in the last step (``model_card.py``), and
each look is one line in ``benchmarks/test-evaluations.csv``.

    python benchmarks/make_model.py --data DIR [--runs DIR] [--config configs/default.yaml]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import mobile_sam
from common import DATA_PAGE, ROOT, dermseg, runs_folder
from dermseg.data.index import IndexRow, read_index, write_index
from dermseg.export.fit_gate import fit_bundle_gate
from dermseg.export.fit_repeatability import fit_bundle_repeatability
from dermseg.files import atomic_write
from dermseg.inference.bundle import is_bundled_name, load_bundle
from dermseg.inference.card import CARD_NAME
from dermseg.models import tiny_vit
from dermseg.training.checkpoint import BEST, CONFIG
from dermseg.training.config import RunConfig, expand, load_config
from fit_gate import INDEXES as GATE_INDEXES
from model_card import BUNDLE, write_card

LICENCE = "CC-BY-NC-4.0 (weights; the training data are for non-commercial use)"
NOTE = "Trained on dermoscopic images of mostly light skin; accuracy on dark skin is not established."
DATA_SETS = {"isic": "ISIC 2018", "ham": "HAM10000", "ph2": "PH2"}
# All bundles together stay below 25 MB, so only the default comes in two forms.
VARIANTS = {"default": "fp16,int8", "accurate": "int8-weights"}
# Bundles that work together with another one, which must be there before.
PARTNERS = {"accurate": "default"}
EXPORTED = "exported.json"
_FRAME_TOLERANCE = 0.02


def import_data(data: Path, index: Path, needed: Collection[str]) -> None:
    """The indexes of the four data sets, with the splits of ``splits.csv``; without those only tested on.

    Parameters
    ----------
    needed
        Names of those that must be there. The others are left out where their files are not.
    """
    meta = data / "isic2018_metadata.csv"
    splits = ("--splits", data / "splits.csv")
    official = (
        data / "ISIC2018_Task1-2_Training_Input.zip",
        data / "ISIC2018_Task1_Training_GroundTruth.zip",
    )
    ham = (data / "HAM10000_images.zip", data / "HAM10000_segmentations_lesion_tschandl.zip")
    crop = data / "ISIC2018_crop512.zip"
    # crop512 shows the same photographs: it takes its splits from isic.csv, so that two views never part
    views = (crop, "--name", "isic2018_crop512", "--metadata", meta, "--splits", index / "isic.csv")
    wanted: dict[str, tuple[object, ...]] = {
        "isic": ("isic2018", *official, "--metadata", meta, *splits, "--exclude-leaks"),
        "ham": ("ham10000", *ham, "--metadata", data / "HAM10000_metadata.csv", *splits, "--exclude-leaks"),
        "crop512": ("folder", *views),
        "ph2": ("ph2", data / "PH2Dataset_20.zip", "--split", "test"),
    }
    wanted = {name: words for name, words in wanted.items() if not (index / f"{name}.csv").exists()}
    missing: dict[str, list[str]] = {}
    for name, arguments in wanted.items():
        files = [word for word in arguments if isinstance(word, Path) and word.parent == data]
        if lost := [str(file) for file in files if not file.exists()]:
            missing[name] = lost
    if short := dict.fromkeys(file for name in missing if name in needed for file in missing[name]):
        raise SystemExit(f"error: no such file: {', '.join(short)} ({DATA_PAGE})")
    index.mkdir(parents=True, exist_ok=True)
    for name, arguments in wanted.items():
        if name in missing:
            print(f"{name} is left out, nothing is tested on it: no {', '.join(missing[name])}", flush=True)
        else:
            dermseg("data", "import", *arguments, "-o", index / f"{name}.csv")
    for name, choose in {"consensus": consensus_rows, "slr": slr_rows}.items():
        if not (index / f"isic-{name}.csv").exists():
            train = [row for row in read_index(index / "isic.csv") if row.split == "train"]
            write_index(choose(train, meta), index / f"isic-{name}.csv")


def needed_indexes(config: RunConfig) -> set[str]:
    """The data sets that a configuration reads; ``isic-slr`` is a part of ``isic``."""
    return {Path(source.index).stem.partition("-")[0] for source in (*config.data.train, *config.data.val)}


def consensus_rows(train: list[IndexRow], metadata: Path) -> list[IndexRow]:
    """The images whose mask is the consensus of several tools, T2 among them.

    They are 11 % of the training images and 37 % of the validation images: the recipe shows them more often.
    """
    with metadata.open(encoding="utf-8", newline="") as file:
        tools = {row["isic_id"]: set(re.findall(r"T\d", row["annotations"])) for row in csv.DictReader(file)}
    return [row for row in train if "T2" in (t := tools.get(row.image_id, set())) and len(t) > 1]


def slr_rows(train: list[IndexRow], _: Path) -> list[IndexRow]:
    """The images with the 3:2 frame of a camera with exchangeable lenses.

    They are 48 % of the training images and 94 % of the validation images, and their masks were drawn with
    other tools than those of the rest: the last stage of the recipe leans on them.
    """
    return [row for row in train if abs(row.width / row.height - 1.5) < _FRAME_TOLERANCE]


def summarise(config: RunConfig) -> str:
    """What the network is and what it was trained on, in one line."""
    encoder = str(config.model.options.get("encoder", ""))
    if lite := re.fullmatch(r"efficientnet_lite(\d)", encoder):
        encoder = f"EfficientNet-Lite{lite[1]}"
    elif encoder == tiny_vit.NAME:
        encoder = "TinyViT"
    network = f"{encoder} U-Net" if encoder else config.model.architecture
    indexes = [Path(source.index).stem for source in config.data.train]
    data = [name for stem, name in DATA_SETS.items() if stem in indexes] or sorted(set(indexes))
    return f"{network} for the outline of one skin lesion, trained on {' and '.join(data)}"


def train(config: Path, run: Path, overrides: list[str]) -> None:
    """Train, or go on; before that the run it starts from and its teachers, by the configs beside it."""
    if (run / CONFIG).exists():
        dermseg("train", "--resume", run)
        return
    settings = load_config(config)
    if settings.model.options.get("encoder") == tiny_vit.NAME and tiny_vit.PLACE not in os.environ:
        os.environ[tiny_vit.PLACE] = str(mobile_sam.fetch(run.parent))
    for needed in (settings.model.init_from, *settings.data.teachers):
        if needed and not is_bundled_name(needed):
            provide(expand(needed), config)
    dermseg("train", config, "-o", run, *overrides)


def provide(path: Path, config: Path) -> None:
    """Make the run ``run-NAME``, or its bundle ``teacher-NAME``, by the config of that name."""
    name = path.name.removeprefix("run-").removeprefix("teacher-")
    run = path.with_name(f"run-{name}")
    if path == run or not path.exists():
        train(config.with_name(f"{name}.yaml"), run, [])
    if not path.exists():
        dermseg("export", run, "-o", path)


def export(run: Path, bundle: Path, words: list[str]) -> None:
    """Export the run's best weights, unless the bundle holds what these words gave of them."""
    weights = hashlib.sha256((run / BEST).read_bytes()).hexdigest()
    wanted: dict[str, Any] = {"weights": weights, "words": words}
    if "--partner" in words:
        wanted["partner"] = load_bundle(words[words.index("--partner") + 1]).card.variant().sha256
    note = run / EXPORTED
    if note.exists() and (bundle / CARD_NAME).exists():
        known = json.loads(note.read_text("utf-8"))
        if known == wanted | {"created": load_bundle(bundle).card.created}:
            return
    dermseg("export", run, "-o", bundle, *words, "--overwrite")
    wanted["created"] = load_bundle(bundle).card.created
    atomic_write(note, (json.dumps(wanted, indent=2) + "\n").encode())


def main() -> None:
    """Run every step that has not been done yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("DERMSEG_DATA"), help="folder of the data"
    )
    parser.add_argument("--runs", type=Path, default=runs_folder())
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "default.yaml")
    parser.add_argument("--run", type=Path, help="run folder; default RUNS/run-<name of the config>")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--name", default="default")
    parser.add_argument("--version", help="default: that of the bundle that is there, else 1")
    parser.add_argument("--summary", help="default: the network and the data of the run")
    parser.add_argument("--variants", help="for dermseg export; default: those of the bundle of that name")
    parser.add_argument("--note", action="append", default=[], help="for the card: what a reader should know")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for dermseg train")
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data or DERMSEG_DATA must name the folder with the data sets")
    data = Path(args.data)
    os.environ["DERMSEG_RUNS"] = str(args.runs)
    index = args.runs / "index"
    bundled = args.bundle.resolve().parent == BUNDLE.parent  # its card has a row of every data set
    import_data(data, index, {*DATA_SETS, "crop512"} if bundled else needed_indexes(load_config(args.config)))

    run = args.run or args.runs / f"run-{args.config.stem}"
    train(args.config, run, [word for item in args.set for word in ("--set", item)])

    config = load_config(run / CONFIG)
    partner = PARTNERS.get(args.name)
    summary = args.summary or summarise(config) + (f", averaged with '{partner}'" if partner else "")
    known = load_bundle(args.bundle).card.version if (args.bundle / CARD_NAME).exists() else "1"
    words = ["--name", args.name, "--version", args.version or known, "--licence", LICENCE]
    words += ["--summary", summary, "--variants", args.variants or VARIANTS.get(args.name, "fp16")]
    words += ["--partner", partner] if partner else []
    export(run, args.bundle, words + [word for note in (NOTE, *args.note) for word in ("--note", note)])
    # fitted on nothing that the network was not allowed to see
    seen = {Path(source.index).stem for source in config.data.train}
    indexes = [index / f"{name}.csv" for name in GATE_INDEXES if name in seen]
    if "trust" not in load_bundle(args.bundle).card.attachments:
        fitted_on = [word for path in indexes if path.stem in ("isic", "ham") for word in ("--data", path)]
        dermseg("uncertainty", "fit", args.bundle, *fitted_on)
    if "gate" not in load_bundle(args.bundle).card.attachments:
        fit_bundle_gate(args.bundle, indexes, report=print)
    if "repeatability" not in load_bundle(args.bundle).card.attachments and "ham" in seen:
        fit_bundle_repeatability(args.bundle, [index / "ham.csv"], report=print)

    output = ROOT if args.bundle.resolve() == BUNDLE else run
    for metric in write_card(args.bundle, data, args.runs, output):
        print(f"{metric.dataset}: n {metric.n}, Dice {metric.dice}")


if __name__ == "__main__":
    main()
