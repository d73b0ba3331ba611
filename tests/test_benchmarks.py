"""Programs behind the figures: what they need and do not find is one line."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the programs need the extra [train]")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ROOT = BENCHMARKS.parent
# page, section of it, the program that writes it, by which function, from which result
SECTIONS = [
    ("docs/scale-out.md", "size", "size_run", "table", "soak_batch"),
    ("docs/measuring.md", "following", "following", "table", "following"),
    ("docs/measuring.md", "readings", "readings", "table", "readings"),
    ("docs/measuring.md", "repeatability", "repeatability", "table", "repeatability"),
    ("docs/performance.md", "speed", "speed", "tables", "speed"),
    ("docs/performance.md", "speed-amx", "speed", "tables", "speed-amx"),
    ("docs/performance.md", "startup", "startup", "tell", "startup"),
    ("README.md", "throughput", "throughput", "table", "throughput"),
]
ON_DATA = ["choices", "peer", "finetune", "following", "readings", "repeatability", "gate", "uncertainty"]


@pytest.fixture(autouse=True)
def nothing_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delenv("DERMSEG_RUNS", raising=False)
    monkeypatch.delenv("DERMSEG_DATA", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)


def run(program: str, *words: str) -> None:
    sys.argv[:] = [program, *words]
    runpy.run_path(str(BENCHMARKS / f"{program}.py"), run_name="__main__")


@pytest.mark.parametrize("program", ON_DATA)
def test_without_data_a_program_says_what_to_do(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    if program in ("choices", "peer", "readings"):
        with pytest.raises(SystemExit, match="DERMSEG_DATA must name"):
            run(program)
        monkeypatch.setenv("DERMSEG_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=r"no such index: .*dermseg-runs.*ham\.csv[\s\S]*make model"):
        run(program)


def test_a_model_without_ham10000_needs_none_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model: dict[str, Any] = runpy.run_path(str(BENCHMARKS / "make_model.py"))
    called: list[tuple[Any, ...]] = []
    made = make_model["import_data"].__globals__
    monkeypatch.setitem(made, "dermseg", lambda *words: called.append(words))
    monkeypatch.setitem(made, "read_index", lambda path: [])
    config = made["load_config"](made["ROOT"] / "configs" / "isic.yaml")
    needed = make_model["needed_indexes"](config)
    assert needed == {"isic", "crop512"}
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(SystemExit, match=r"splits\.csv") as refused:
        make_model["import_data"](data, tmp_path / "index", needed)
    assert "HAM10000" not in str(refused.value) and "CONTRIBUTING.md" in str(refused.value)
    for name in (
        "ISIC2018_Task1-2_Training_Input.zip",
        "ISIC2018_Task1_Training_GroundTruth.zip",
        "ISIC2018_crop512.zip",
        "splits.csv",
    ):
        (data / name).touch()
    (data / "isic2018_metadata.csv").write_text("isic_id,annotations\n")
    make_model["import_data"](data, tmp_path / "index", needed)
    assert [words[2] for words in called] == ["isic2018", "folder"]
    assert "ham is left out" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"HAM10000_images\.zip"):
        make_model["import_data"](data, tmp_path / "index", {"ham"})


@pytest.mark.parametrize(("page", "section", "program", "function", "result"), SECTIONS)
def test_pages_show_the_results(page: str, section: str, program: str, function: str, result: str) -> None:
    """A measurement that was made again goes into the page too."""
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = text.partition(f"<!-- {section}: begin -->\n")[2].partition(f"\n<!-- {section}: end -->")[0]
    names = runpy.run_path(str(BENCHMARKS / f"{program}.py"))
    measured = json.loads((BENCHMARKS / "results" / f"{result}.json").read_text(encoding="utf-8"))
    more = (10_000_000, names["Prices"]()) if program == "size_run" else ()
    assert names[function](measured, *more) == shown
