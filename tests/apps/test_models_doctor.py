"""``dermseg models`` and ``dermseg doctor``, with a whole and a damaged bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dermseg.apps.cli.doctor import extras_of_package, is_too_old, runtime_lines
from dermseg.inference.bundle import BUNDLED, load_bundle
from dermseg.inference.runtimes import RUNTIMES
from dermseg.registry import ARCHITECTURES

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def damaged(tiny_bundle: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "damaged"))
    data = bytearray((folder / "model.onnx").read_bytes())
    data[-1] ^= 1
    (folder / "model.onnx").write_bytes(data)
    return folder


def test_the_list_names_every_architecture(run: Run) -> None:
    code, out, _ = run("models", "list", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {a.name for a in ARCHITECTURES} == {r["name"] for r in rows if r["kind"] == "architecture"}
    assert all(row["parameters"] > 0 and row["summary"] for row in rows)
    code, out, _ = run("models", "list")
    assert code == 0 and "31,037,633" in out


def test_info_shows_the_card(tiny_bundle: Path, run: Run) -> None:
    code, out, _ = run("models", "info", str(tiny_bundle), "--json")
    assert code == 0 and json.loads(out)["name"] == "darkness"
    code, out, _ = run("models", "info", str(tiny_bundle))
    assert code == 0 and "input 64 x 64" in out and "hole filling" in out


def test_verify_tells_a_whole_bundle_from_a_damaged_one(tiny_bundle: Path, damaged: Path, run: Run) -> None:
    code, out, _ = run("models", "verify", str(tiny_bundle), "--json")
    assert code == 0 and json.loads(out)["variants"] == {"fp32": "ok"}
    code, out, _ = run("models", "verify", str(damaged), "--json")
    assert code == 1 and "sha256" in json.loads(out)["variants"]["fp32"]
    code, _, err = run("models", "verify", str(damaged / "nothing"))
    assert code == 2 and "no bundle" in err


def test_verify_finds_a_damaged_file_beside_the_network(tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(BUNDLED / "fast", tmp_path / "damaged"))
    files = {part.file for part in load_bundle(folder).card.attachments.values()}
    assert len(files) >= 4
    for file in files:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        code, out, _ = run("models", "verify", str(folder), "--json")
        wrong = [state for state in json.loads(out)["attachments"].values() if state != "ok"]
        assert code == 1 and len(wrong) == 1 and f"'{file}' has sha256" in wrong[0]
        (folder / file).write_bytes(data)
    code, _, err = run("models", "verify", str(folder))
    assert code == 0 and "fast mc_dropout: ok" in err


def test_doctor_runs_the_model(tiny_bundle: Path, run: Run) -> None:
    code, out, _ = run("doctor", "--model", str(tiny_bundle), "--json")
    report = json.loads(out)
    assert code == 0 and report["ok"]
    assert report["model"]["status"] == "ok" and report["model"]["dice"] > 0.9
    assert report["cpu"]["usable"] >= 1 and "CPUExecutionProvider" in report["providers"]
    assert {"numpy", "onnxruntime"} <= {check["name"] for check in report["checks"]}
    runtimes = report["runtimes"]
    assert set(runtimes["obstacles"]) == set(RUNTIMES)
    assert runtimes["obstacles"]["onnxruntime"] is None
    assert runtimes["obstacles"][runtimes["chosen"]] is None
    taken = {name: runtime_lines(runtimes | {"chosen": name})[-1] for name in ("onnxruntime", "openvino")}
    assert taken["onnxruntime"].endswith(" onnxruntime") and "from 200 images on" in taken["openvino"]
    code, out, _ = run("doctor", "--model", str(tiny_bundle))  # what was measured is kept
    assert code == 0 and all(f"runtime {name}" in out for name in RUNTIMES)
    for name, time in (runtimes["milliseconds"] or {}).items():
        assert f"{name:<14}  can be used, {time:.1f} ms per image on one thread" in out


def test_doctor_says_what_is_broken(damaged: Path, run: Run) -> None:
    code, out, _ = run("doctor", "--model", str(damaged))
    assert code == 1 and "BROKEN" in out and "sha256" in out
    code, out, _ = run("doctor", "--model", str(damaged), "--json")
    assert code == 1 and not json.loads(out)["ok"]


def test_doctor_has_no_row_for_all_extras_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # the build writes every requirement of the others under "all" too
    declared = ["scipy>=1.14; extra == 'stats'", "scipy>=1.14; extra == 'all'", "numpy>=2.0"]
    monkeypatch.setattr("dermseg.apps.cli.doctor.metadata.requires", lambda name: declared)
    assert extras_of_package() == {"stats": ["scipy>=1.14"]}


def test_doctor_says_what_is_too_old(tiny_bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["numpy>=2.0", "pyside6<6.12,>=6.7; extra == 'desktop'", "ray[data]>=2.40; extra == 'ray'"]
    monkeypatch.setattr("dermseg.apps.cli.doctor.metadata.requires", lambda name: declared)
    versions = {"pyside6": "6.10.1", "ray": "2.9.3"}
    monkeypatch.setattr("dermseg.apps.cli.doctor.metadata.version", lambda name: versions.get(name, "2.0.0"))
    code, out, _ = run("doctor", "--model", str(tiny_bundle))
    assert (
        code == 0
        and 'too old  [ray]                   ray 2.9.3 (ray[data]>=2.40): pip install "dermseg[ray]"' in out
    )
    assert "ok       [desktop]               pyside6 6.10.1" in out
    versions |= {"ray": "2.60.0", "numpy": "1.26.4"}
    code, out, _ = run("doctor", "--model", str(tiny_bundle))
    assert code == 1 and "too old  " not in out
    assert "BROKEN   numpy                   1.26.4 is too old: numpy>=2.0" in out
    assert 'try: pip install --upgrade "numpy>=2.0"' in out


@pytest.mark.parametrize(
    ("version", "requirement", "old"),
    [
        ("16.1.0", "pyarrow>=17", True),
        ("17", "pyarrow>=17.0", False),
        ("2.10.0+cpu", "torch>=2.6", False),
        ("2.6.0rc1", "torch>=2.6", False),
        ("0.9", "efficientnet", False),
        ("6.6.3", "pyside6-essentials<6.12,>=6.7", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, requirement: str, old: bool) -> None:
    assert is_too_old(version, requirement) == old
