"""The loop, played on drawn lesions, and what is made of its figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

from dermseg.apps.cli.main import main
from dermseg.data.index import IndexRow, write_index
from dermseg.data.synthetic import synthesize
from dermseg.experiments.curves import labels_needed, summarize
from dermseg.experiments.simulate import Cell

TINY = [
    "model={architecture: unet, options: {widths: [4, 8]}}",
    "training.image_size=32",
    "training.batch_size=2",
    "data.train.0.per_epoch=4",
    "training.threads=1",
    "training.device=cpu",
]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "drawn"
    folder.mkdir()
    rows = []
    for seed in range(12):
        image, mask, _ = synthesize(seed, (64, 80))
        cv2.imwrite(str(folder / f"{seed}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(folder / f"{seed}_mask.png"), mask.astype(np.uint8) * 255)
        rows.append(
            IndexRow(
                f"{seed}",
                f"{seed}.png",
                (f"{seed}_mask.png",),
                "drawn",
                split="train" if seed < 9 else "test",
                width=80,
                height=64,
                sha256=f"{seed:064x}",
                root=folder,
            )
        )
    write_index(rows, folder / "index.csv")
    return folder / "index.csv"


def _simulate(index: Path, output: Path, *more: str) -> int:
    settings = [word for item in TINY for word in ("--set", item)]
    with pytest.raises(SystemExit) as end:
        main(["label", "simulate", str(index), "-o", str(output), "--sizes", "2,4", *settings, *more])
    return int(end.value.code or 0)


def test_every_strategy_starts_alike_and_labels_no_image_twice(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "played"
    assert _simulate(index, output, "--seeds", "2", "--by", "random,mixed,disagreement", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((output / "simulate.json").read_text())
    assert summary["images"] == {"pool": 9, "test": 3}
    assert [row["labelled"] for row in summary["strategies"]["mixed"]["dice"]] == [2, 4]
    files = sorted((output / "cells").glob("*.json"))
    assert len(files) == 2 * (1 + 3)
    cells = {file.stem: json.loads(file.read_text()) for file in files}
    for name, cell in cells.items():
        assert len(set(cell["images"])) == len(cell["images"]), name
        assert cell["images"][:2] == cells[f"{cell['seed']}-start-2"]["images"]
    with (output / "simulate.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 * 3 * 2
    assert cv2.imread(str(output / "simulate.png")) is not None
    assert (output / "simulate.svg").read_text().startswith("<?xml")
    assert not list(output.glob("cell.*")), "what a cell trained is cleared away"

    # a second call plays what is missing and nothing else
    lost, kept = output / "cells" / "1-mixed-4.json", output / "cells" / "0-mixed-4.json"
    before, stamp = json.loads(lost.read_text()), kept.stat().st_mtime_ns
    lost.unlink()
    assert _simulate(index, output, "--seeds", "2", "--by", "random,mixed,disagreement") == 0
    after = json.loads(lost.read_text())
    assert (after["images"], after["dice"]) == (before["images"], before["dice"])
    assert kept.stat().st_mtime_ns == stamp
    assert _simulate(index, output, "--seeds", "3") == 2, "other settings, same folder"
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--sizes", "4,2"), "do not rise"),
        (("--sizes", "4,20"), "cannot be labelled of 9"),
        (("--by", "luck"), "'luck' is not known"),
        (("--test-split", "train"), "both labelled and scored"),
        (("--split", "all"), "images of split 'test' are in split 'all'"),
    ],
)
def test_what_cannot_be_played(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    assert _simulate(index, tmp_path / "played", *more) == 2
    assert message in capsys.readouterr().err


def test_labels_needed_reads_the_curve_between_its_points() -> None:
    curve = np.array([0.5, 0.7, 0.6, 0.8])
    assert labels_needed([10, 20, 40, 80], curve, 0.6) == 15
    assert labels_needed([10, 20, 40, 80], curve, 0.75) == 60
    assert labels_needed([10, 20, 40, 80], curve, 0.4) == 10
    assert labels_needed([10, 20, 40, 80], curve, 0.81) is None


def test_a_strategy_that_learns_twice_as_fast_needs_half_of_the_labels() -> None:
    sizes, cells = (10, 20, 40), []
    for seed in range(3):
        offset = 0.01 * seed
        cells.append(Cell(seed, "start", ["x"] * 10, 0.5 + offset, 0, {}))
        for n, slow, fast in ((20, 0.6, 0.7), (40, 0.7, 0.8)):
            cells.append(Cell(seed, "random", ["x"] * n, slow + offset, 0, {}))
            cells.append(Cell(seed, "mixed", ["x"] * n, fast + offset, 0, {}))
    found = summarize(cells, sizes, ("random", "mixed"))["strategies"]
    assert found["mixed"]["labels_share"] == {"share": 0.5, "bootstrap95": [0.5, 0.5]}
    last = found["mixed"]["dice"][-1]
    assert last["mean"] == pytest.approx(0.81)
    assert last["minus_random"]["mean"] == pytest.approx(0.1)
    assert last["minus_random"]["ci95"] == pytest.approx([0.1, 0.1])
    assert "labels_share" not in found["random"]


@pytest.mark.parametrize(
    ("curve", "share"), [((0.76, 0.80, 0.80, 0.80), 17.5 / 80), ((0.76, 0.78, 0.79, 0.795), 0.5)]
)
def test_labels_are_counted_to_the_dice_that_random_has_in_the_end(
    curve: tuple[float, ...], share: float
) -> None:
    sizes, random = (10, 20, 40, 80), (0.76, 0.80, 0.79, 0.79)  # more labels took it down again
    cells = [Cell(0, "start", [], curve[0], 0, {})]
    for n, chance, clever in list(zip(sizes, random, curve, strict=True))[1:]:
        cells += [Cell(0, "random", ["x"] * n, chance, 0, {}), Cell(0, "mixed", ["x"] * n, clever, 0, {})]
    cells[0] = Cell(0, "start", ["x"] * 10, curve[0], 0, {})
    found = summarize(cells, sizes, ("random", "mixed"))["strategies"]["mixed"]["labels_share"]["share"]
    assert found == pytest.approx(share, abs=1e-4)
