"""A suite from YAML to report on drawn images, and its parts."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dermseg.apps.cli.main import main
from dermseg.data.index import EXCLUDED, IndexRow, read_index, write_index
from dermseg.data.sources.synthetic import write_synthetic
from dermseg.errors import ConfigError, DataError, UsageError
from dermseg.evaluation.counts import Counts
from dermseg.evaluation.intervals import holm
from dermseg.evaluation.output import METRICS_FILE
from dermseg.evaluation.statistics import paired_difference
from dermseg.evaluation.table import Evaluation, ImageScore
from dermseg.experiments import figures, run
from dermseg.experiments.outcomes import Outcome, collect, merge_folds, paired_tests
from dermseg.experiments.report import write_report
from dermseg.experiments.run import run_suite
from dermseg.experiments.settled import DONE
from dermseg.experiments.subsets import fold_index, fraction_index, take_fraction
from dermseg.experiments.suite import SuiteConfig, TestConfig, cells, load_suite, run_config
from dermseg.images.masks import save_mask
from dermseg.training.start import load_run

SUITES = sorted((Path(__file__).parents[2] / "configs" / "suite").glob("*-*.yaml"))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_every_run_of_a_shipped_suite_has_a_configuration(path: Path) -> None:
    suite = load_suite(path)
    configs = [run_config(suite, path, cell) for cell in cells(suite)]
    assert len({config.name for config in configs}) == len(configs) > 1
    assert all(config.training.epochs >= 20 for config in configs)


def test_a_suite_of_fine_tuning_takes_the_network_that_train_would_take(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "configs" / "finetune.yaml"
    (tmp_path / "base.yaml").write_text(recipe.read_text())
    suite = SuiteConfig(
        name="rates",
        base="base.yaml",
        axes={"lr": {"1e-4": {"training.lr": 1e-4}, "1e-3": {"training.lr": 1e-3}}},
        evaluate=(TestConfig(name="own"),),
    )
    first, second = (run_config(suite, tmp_path / "suite.yaml", cell) for cell in cells(suite))
    alone = load_run(recipe)
    assert first.model == second.model == alone.model
    assert first.training == alone.training.model_copy(update={"lr": 1e-4})


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    """Two models on half and all of twelve drawn images."""
    write_synthetic(tmp_path / "data", 18, seed=3, size=(48, 64))
    rows = read_index(tmp_path / "data" / "index.csv")
    splits = ["train"] * 12 + ["val"] * 3 + ["test"] * 3
    index = tmp_path / "index.csv"
    write_index(_with_splits(rows, splits), index)
    base = {
        "data": {
            "train": [{"index": str(index), "split": "train"}],
            "val": [{"index": str(index), "split": "val"}],
            "cache_dir": str(tmp_path / "cache"),
            "cache_size": 32,
        },
        "training": {"epochs": 1, "image_size": 32, "batch_size": 4},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    suite = {
        "name": "tiny",
        "base": "base.yaml",
        "axes": {
            "model": {
                "narrow": {"model.architecture": "unet", "model.options": {"widths": [2, 4]}},
                "wide": {"model.architecture": "unet", "model.options": {"widths": [4, 8]}},
            },
            "data": {"50 %": {"fraction": 0.5}, "100 %": {}},
        },
        "evaluate": [{"name": "drawn", "index": str(index), "split": "test"}],
    }
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    return path


def _with_splits(rows: list[IndexRow], splits: list[str]) -> list[IndexRow]:
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def test_suite_runs_resumes_and_reports(suite_file: Path, tmp_path: Path) -> None:
    suite, out, said = load_suite(suite_file), tmp_path / "out", list[str]()
    assert run_suite(suite, suite_file, out, quiet=True, report=said.append) == []
    assert next(cell.name for cell in cells(suite)) == "narrow--50-pct--seed0"
    assert len(said) == 4
    assert run_suite(suite, suite_file, out, quiet=True, report=said.append) == []
    assert len(said) == 4, "finished runs are not repeated"

    files = {path.name for path in write_report(out, suite.name)}
    assert files == {"results.csv", "tests.csv", "report.md", "report.html", "curves.png", "worst.jpg"}
    for file in ("report.md", "report.html"):
        text = (out / file).read_text(encoding="utf-8")
        assert "SD of Dice over images" in text and "dice_sd" not in text, "columns are words"
        assert "bars are 95 % intervals (t) over images" in text and "on which all do worst" in text
        assert "Paired differences" in text
    assert '<meta name="viewport"' in text and "<main>" in text and '<th scope="col"' in text
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [(row["model"], row["data"], row["n"]) for row in rows] == [
        ("narrow", "50 %", "3"),
        ("narrow", "100 %", "3"),
        ("wide", "50 %", "3"),
        ("wide", "100 %", "3"),
    ]
    tests = list(csv.DictReader((out / "tests.csv").read_text().splitlines()))
    assert {(row["a"], row["b"], row["where"]) for row in tests} == {
        ("narrow", "wide", "100 %"),
        ("narrow", "wide", "50 %"),
    }
    subset = read_index(next((out / "indexes").glob("*50pct.csv")))
    assert [row.split for row in subset].count("train") == 6

    again = shutil.copytree(out / "runs" / "wide--50-pct--seed0", out / "runs" / "wide--50-pct--seed1")
    table = again / "evaluation" / "drawn" / "per_image.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="'wide, 50 %' were evaluated on different images"):
        write_report(out, suite.name)


def test_cross_validation_is_one_line(suite_file: Path, tmp_path: Path) -> None:
    suite = yaml.safe_load(suite_file.read_text())
    del suite["axes"]["data"]
    suite_file.write_text(yaml.safe_dump({**suite, "folds": 3, "evaluate": [{"name": "left out"}]}))
    out = tmp_path / "out"
    assert run_suite(load_suite(suite_file), suite_file, out, quiet=True, report=print) == []
    write_report(out, "tiny")
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    narrow = [row for row in rows if row["model"] == "narrow"]
    assert [row["fold"] for row in narrow] == ["1", "2", "3", "all"]
    assert int(narrow[3]["n"]) == sum(int(row["n"]) for row in narrow[:3]) == 18, "each is left out once"
    means = [float(row["dice"]) * int(row["n"]) / 18 for row in narrow[:3]]
    assert float(narrow[3]["dice"]) == pytest.approx(sum(means), abs=1e-4)
    tests = list(csv.DictReader((out / "tests.csv").read_text().splitlines()))
    assert [(row["where"], row["n"]) for row in tests] == [("all", "18")], "models meet on all images at once"
    suite["axes"]["model"]["narrow"]["fold"] = 2
    suite_file.write_text(yaml.safe_dump({**suite, "folds": 3}))
    assert list(load_suite(suite_file).axes) == ["model"], "a variation says which fold"


@pytest.fixture
def two_indexes(suite_file: Path, tmp_path: Path) -> list[Path]:
    """A suite of three folds over two indexes without splits, which share no image."""
    indexes = []
    for number, name in enumerate("ab"):
        write_synthetic(tmp_path / name, 6, seed=100 * number, size=(48, 64))
        index = tmp_path / name / "index.csv"
        rows = [replace(row, dataset=name, split="") for row in read_index(index)]
        write_index([replace(rows[0], split=EXCLUDED), *rows[1:]], index)
        indexes.append(index)
    base = yaml.safe_load((tmp_path / "base.yaml").read_text())
    for part in ("train", "val"):
        base["data"][part] = [{"index": str(index), "split": part} for index in indexes]
    base["model"] = {"architecture": "unet", "options": {"widths": [2, 4]}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    suite = {"name": "tiny", "base": "base.yaml", "folds": 3, "evaluate": [{"name": "left out"}]}
    suite_file.write_text(yaml.safe_dump(suite))
    return indexes


def test_cross_validation_scores_every_index(
    suite_file: Path, two_indexes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, out = load_suite(suite_file), tmp_path / "out"
    assert run_suite(suite, suite_file, out, quiet=True, report=print) == []
    write_report(out, "tiny")
    *folds, whole = csv.DictReader((out / "results.csv").read_text().splitlines())
    assert [row["fold"] for row in (*folds, whole)] == ["1", "2", "3", "all"]
    assert int(whole["n"]) == sum(int(row["n"]) for row in folds) == 10
    (merged,), remarks = merge_folds(collect(out))
    assert sorted(key[0] for key in merged.by_image()) == ["a"] * 5 + ["b"] * 5 and remarks == []

    # of another name and split, and yet the images that the folds are made of
    copy = tmp_path / "copy.csv"
    write_index([replace(row, split="test", dataset="c") for row in read_index(two_indexes[1])], copy)
    leak = suite.model_copy(update={"evaluate": (TestConfig(name="copy", index=str(copy)),)})
    with pytest.raises(ConfigError, match=r"made of 5 of the 6 images .*split 'test' of it is trained on"):
        run_suite(leak, suite_file, tmp_path / "other", quiet=True, report=print)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["suite", "evaluate", str(out), "--data", str(copy), "--json"])
    said = capsys.readouterr()
    assert (end.value.code, json.loads(said.out)["failed"]) == (1, 3)
    assert "was trained on, or chosen by, " in said.err
    assert not list(out.rglob("copy-test"))

    # an evaluation of the first index alone, as older versions made it, is not kept
    metrics = out / "runs" / "1--seed0" / "evaluation" / "left out" / METRICS_FILE
    kept = metrics.read_text()
    found = json.loads(kept)
    found["protocol"]["index"] = found["protocol"]["index"][0]
    metrics.write_text(json.dumps(found))
    with pytest.raises(ConfigError, match="'left out' of 1--seed0 was made with other settings: index was"):
        run_suite(suite, suite_file, out, quiet=True, report=print)
    metrics.write_text(kept)

    (out / "runs" / "2--seed0" / DONE).unlink()
    write_report(out, "tiny")
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["fold"] for row in rows] == ["1", "3"], "a part is not all"
    assert "2 of 3 folds" in (out / "report.md").read_text(encoding="utf-8")

    # a folder that was moved has the indexes of its folds with it
    write_synthetic(tmp_path / "apart", 3, seed=300, size=(48, 64))
    apart = tmp_path / "apart" / "index.csv"
    write_index([replace(row, split="test", dataset="d") for row in read_index(apart)], apart)
    out = out.rename(tmp_path / "moved")
    for data, code in ((apart, 0), (copy, 1)):
        with pytest.raises(SystemExit) as end:
            main(["suite", "evaluate", str(out), "--data", str(data)])
        assert end.value.code == code
    assert "1--seed0: " in (told := capsys.readouterr().err) and "was trained on, or chosen by, " in told
    assert len(list(out.rglob("index-test"))) == 3


def test_folds_are_merged_only_where_none_is_missing() -> None:
    def fold(model: str, number: int, seeds: tuple[int, ...] = (0,)) -> Outcome:
        scores = [ImageScore(f"{number}{i}", Counts(90 + i, 10, 10, 0)) for i in range(4)]
        variations = (("model", model), ("fold", str(number)))
        evaluations = (Evaluation(scores),) * len(seeds)
        return Outcome(variations, "t", (), evaluations, 0, 0.0, "", seeds=seeds, folds=3)

    a, b = ([fold(model, number) for number in (1, 2, 3)] for model in "AB")
    whole, remarks = merge_folds([*a, *b])
    assert [(o.label, o.evaluations[0].n) for o in whole] == [("A, all", 12), ("B, all", 12)]
    assert remarks == [] and [row["n"] for row in paired_tests(whole)] == [12]
    for part, words in (
        (a[:2], "A: 2 of 3 folds"),
        ([*a[:2], fold("A", 3, (0, 1))], "A: folds of different"),
    ):
        whole, (remark,) = merge_folds([*part, *b])
        assert [o.label for o in whole] == [*(o.label for o in part), "B, all"]
        assert remark.startswith(words) and paired_tests(whole) == []
    (row,) = paired_tests([fold("A", 1, (0, 1)), b[0]])
    assert row["seeds"] == "0, 1 against 0"


def test_images_that_cannot_be_scored_are_listed(
    suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = yaml.safe_load(suite_file.read_text())
    index = Path(suite["evaluate"][0]["index"])
    rows, apart = read_index(index), tmp_path / "apart.csv"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    apart_rows = [
        *rows[-3:],
        replace(rows[0], image_id="broken", image=str(tmp_path / "broken.png"), split="test"),
        replace(rows[1], image_id="bare", masks=(), split="test"),
        replace(rows[2], image_id="sideways", masks=(str(tmp_path / "sideways.png"),), split="test"),
    ]
    save_mask(np.ones((64, 48), np.bool_), tmp_path / "sideways.png")
    write_index(apart_rows, apart)
    suite["axes"] = {"model": {"narrow": suite["axes"]["model"]["narrow"]}}
    suite["evaluate"][0]["index"] = str(apart)
    suite_file.write_text(yaml.safe_dump(suite))
    out = tmp_path / "out"
    for words in (
        ["run", str(suite_file), "-o", str(out)],
        ["evaluate", str(out), "--data", str(apart)],
        ["run", str(suite_file), "-o", str(out)],  # nothing is left to do, and it is no better
    ):
        with pytest.raises(SystemExit) as end:
            main(["suite", *words, "--json"])
        said = capsys.readouterr()
        found = json.loads(said.out)
        assert (end.value.code, found["failed"]) == (1, 0), said.err
        assert {failure["image_id"] for failure in found["not_scored"]} == {"broken", "sideways"}
        assert "the mask has 48 x 64 pixels, its image 64 x 48" in said.err
        assert "broken: " in said.err and "no mask, left out" in said.err
    assert found["images_without_mask"] == {"apart-test": 1, "drawn": 1}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Images that could not be scored" in page and "broken.png" in page
    assert "Paired differences" not in page, "a single network is compared with none"
    assert "3 images of drawn, split test (1 without a mask left out)" in page
    (row, _) = csv.DictReader((out / "results.csv").read_text().splitlines())
    assert (row["n"], row["not_scored"], row["without_mask"]) == ("3", "2", "1")


@pytest.mark.parametrize("gone", ["data/images/*", "out/runs/*/best.safetensors"])
def test_tables_need_neither_images_nor_weights(suite_file: Path, tmp_path: Path, gone: str) -> None:
    suite = yaml.safe_load(suite_file.read_text())
    suite["axes"] = {"model": {"narrow": suite["axes"]["model"]["narrow"]}}
    suite_file.write_text(yaml.safe_dump(suite))
    out = tmp_path / "out"
    assert run_suite(load_suite(suite_file), suite_file, out, quiet=True, report=print) == []
    for path in list(tmp_path.glob(gone)):
        path.unlink()
    assert {path.name for path in write_report(out, "tiny")} >= {"results.csv", "report.html"}
    (row,) = csv.DictReader((out / "results.csv").read_text().splitlines())
    assert row["n"] == "3"
    assert "No pictures of the worst images: " in (out / "report.md").read_text(encoding="utf-8")


def test_no_error_of_a_run_keeps_the_others_from_running(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, tried = load_suite(suite_file), list[str]()

    def no_memory(config: Any, *_: Any, **__: Any) -> None:
        tried.append(config.name)
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(run, "train", no_memory)
    failed = run_suite(suite, suite_file, tmp_path / "out", quiet=True, report=print)
    assert [name for name, _ in failed] == tried == [cell.name for cell in cells(suite)]
    assert {why for _, why in failed} == {"RuntimeError: can't allocate memory"}


def test_folds_of_several_indexes_are_the_same(tmp_path: Path) -> None:
    rows = [IndexRow(f"a{i}", f"a{i}.png", (f"a{i}m.png",), "a", lesion=f"HAM_{i:07d}") for i in range(40)]
    others = [replace(row, dataset="b", image_id=f"b{i}", group="") for i, row in enumerate(rows[::2])]
    indexes = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for index, part in zip(indexes, (rows, others), strict=True):
        write_index(part, index)
    seen = set()
    for fold in range(4):
        own, rest = (
            read_index(fold_index(index, fold, 4, tmp_path / "folds", [other]))
            for index, other in (indexes, indexes[::-1])
        )
        assert (len(own), len(rest)) == (40, 20)
        split = {row.lesion: row.split for row in own}
        assert all(split[row.lesion] == row.split for row in rest), "no lesion is on both sides"
        seen |= {row.image_id for row in (*own, *rest) if row.split == "test"}
    assert len(seen) == 60, "each is left out once"


def test_folds_keep_patients_whole_who_were_noted_later(tmp_path: Path) -> None:
    index = tmp_path / "a.csv"
    rows = [
        IndexRow(f"a{i}", f"a{i}.png", (f"a{i}m.png",), "a", f"P{i // 4}", group=f"a/a{i}") for i in range(24)
    ]
    write_index(rows, index)
    for fold in range(3):
        found = read_index(fold_index(index, fold, 3, tmp_path / "folds"))
        assert len({(row.subject, row.split) for row in found}) == 6


def test_folds_are_not_evaluated_on_what_they_are_trained_on(suite_file: Path, tmp_path: Path) -> None:
    suite = yaml.safe_load(suite_file.read_text())
    suite_file.write_text(yaml.safe_dump({**suite, "folds": 3}))
    with pytest.raises(ConfigError, match="split 'test' of it is trained on"):
        run_suite(load_suite(suite_file), suite_file, tmp_path / "out", quiet=True, report=print)
    assert not (tmp_path / "out").exists()


def test_intervals_of_a_suite_know_which_images_are_of_one_lesion() -> None:
    dice = np.random.default_rng(0).integers(400, 500, (2, 10))

    def outcome(model: str, values: Any) -> Outcome:
        """Each image twice, as photographs of one lesion."""
        scores = [
            ImageScore(f"{i}{half}", Counts(int(v), 100, 100, 0), group=f"lesion {i}")
            for i, v in enumerate(values)
            for half in "ab"
        ]
        return Outcome((("model", model),), "drawn", (), (Evaluation(scores),), 0, 0.0, "")

    a, b = outcome("a", dice[0]), outcome("b", dice[1])
    (row,) = paired_tests([a, b])
    x, y = (np.array(list(o.by_image().values()))[::2] for o in (a, b))
    plain = paired_difference(x.tolist(), y.tolist())
    assert (row["n"], row["difference"]) == (20, pytest.approx(plain.mean, abs=1e-4))
    assert (row["low"], row["high"]) == pytest.approx((plain.low, plain.high), abs=1e-4)
    same, *others = paired_tests([a, outcome("like a", dice[0]), b])
    assert (same["p"], same["p_holm"]) == (None, None), "no test, and none that others are corrected for"
    assert [row["p_holm"] for row in others] == holm([row["p"] for row in others])


def test_results_of_other_settings_are_not_kept(suite_file: Path, tmp_path: Path) -> None:
    suite = yaml.safe_load(suite_file.read_text())
    suite["axes"] = {"data": {"50 %": {"fraction": 0.5}, "100 %": {}}}
    suite["set"] = {"model.architecture": "unet", "model.options": {"widths": [2, 4]}}
    out = tmp_path / "out"

    def run(**changed: Any) -> None:
        suite_file.write_text(yaml.safe_dump({**suite, **changed}, sort_keys=False))
        assert run_suite(load_suite(suite_file), suite_file, out, quiet=True, report=print) == []

    run()
    (out / "runs" / "50-pct--seed0" / DONE).unlink()  # as if it had been interrupted
    elsewhere = {"training.threads": 1, "data.decode_workers": 1, "data.cache_dir": str(tmp_path / "other")}
    run(set={**suite["set"], **elsewhere})
    before = sorted(path for path in out.rglob("*"))
    for changed, message in (
        ({"set": {**suite["set"], "training.lr": 0.5}}, "50-pct--seed0.*training.lr was 0.001, is 0.5.*-o"),
        ({"axes": {"data": {"50 %": {"fraction": 0.25}}}}, "data.train.0.index was .*50pct.csv"),
        (
            {"evaluate": [{**suite["evaluate"][0], "split": "val"}]},
            '\'drawn\' of 50-pct--seed0.*split was "test", is "val"',
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            run(**changed)
    assert sorted(path for path in out.rglob("*")) == before

    index = Path(suite["evaluate"][0]["index"])
    rows = read_index(index)
    splits = [row.split for row in rows]
    write_index(_with_splits(rows, splits[::-1]), index)
    with pytest.raises(ConfigError, match=r"50-pct--seed0 was made with other images.* splits have"):
        run()
    write_index(_with_splits(rows, [*splits[:-1], "excluded"]), index)
    with pytest.raises(
        ConfigError, match="the evaluation 'drawn' of 50-pct--seed0 was made with other images"
    ):
        run()


def test_the_worst_images_are_those_of_the_network_that_is_drawn(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = yaml.safe_load(suite_file.read_text())
    index = Path(suite["evaluate"][0]["index"])
    apart = tmp_path / "test.csv"  # the runs know nothing of these images
    write_index([row for row in read_index(index) if row.split == "test"], apart)
    write_index([row for row in read_index(index) if row.split != "test"], index)
    suite["axes"] = {"model": {"narrow": suite["axes"]["model"]["narrow"]}}
    suite["evaluate"][0]["index"] = str(apart)
    suite_file.write_text(yaml.safe_dump({**suite, "seeds": [0, 1]}, sort_keys=False))
    out = tmp_path / "out"
    assert run_suite(load_suite(suite_file), suite_file, out, quiet=True, report=print) == []
    legends = []

    def panel(pixels: Any, mask: Any, legend: tuple[str, ...]) -> Any:
        legends.append(legend[-1])
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(figures, "_panel", panel)
    outcomes = collect(out)
    assert figures.worst_images(outcomes, tmp_path / "worst.jpg") is not None
    (outcome,) = outcomes
    first = sorted(f"Dice {dice:.2f}, seed 0" for dice in outcome.evaluations[0].by_image("dice").values())
    assert sorted(legend for legend in legends if legend != "reference") == first


def test_wrong_requests_end_with_2(
    suite_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(tmp_path / "index.csv")
    (tmp_path / "runs").mkdir()
    for words, message in (
        (["report", str(suite_file), "-o", str(tmp_path / "none")], "no runs of a suite"),
        (["evaluate", str(tmp_path / "runs"), "--data", "nope.csv"], "no such index"),
        (
            ["evaluate", str(tmp_path / "runs"), "--data", index, "--split", "x"],
            "splits in this index",
        ),
    ):
        with pytest.raises(SystemExit) as end:
            main(["suite", *words])
        assert end.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "code"), [("0", 2), ("1", 0)])
def test_a_suite_is_no_work_for_several_processes(
    suite_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    code: int,
) -> None:
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "x")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        main(["suite", "run", str(suite_file), "-o", str(tmp_path / "out")])
    assert end.value.code == code and not (tmp_path / "out").exists()
    assert ("torchrun started 2" in capsys.readouterr().err) is (code == 2)


def test_mistakes_in_a_suite_are_named(suite_file: Path) -> None:
    good = yaml.safe_load(suite_file.read_text())
    suite_file.write_text(yaml.safe_dump({**good, "axis": {}}))
    with pytest.raises(ConfigError, match="axis"):
        load_suite(suite_file)
    suite_file.write_text(yaml.safe_dump({**good, "axes": {"data": {"none": {"fraction": 0}}}}))
    with pytest.raises(ConfigError, match="fraction"):
        load_suite(suite_file)
    for wrong, message in (
        ({"fraction": "10%"}, r"axes\.data\.x: fraction '10%' is not a number"),
        ({"fraction": True}, "fraction True is not a number"),
        ({"fold": "0"}, r"axes\.data\.x: fold '0' is not a whole number"),
        ({"fold": 1.5}, "fold 1.5 is not a whole number"),
    ):
        suite_file.write_text(yaml.safe_dump({**good, "folds": 3, "axes": {"data": {"x": wrong}}}))
        with pytest.raises(ConfigError, match=message):
            load_suite(suite_file)
        suite_file.write_text(yaml.safe_dump({**good, "folds": 3, "set": wrong}))
        with pytest.raises(ConfigError, match="set: f"):
            load_suite(suite_file)
    for twice, message in (
        (
            {"axes": {"lr": {"lr 0.1": {}, "LR_0.1": {"training.lr": 0.1}}}},
            "2 runs would be called 'lr-0.1--seed0'",
        ),
        ({"seeds": [1, 1, 2]}, "runs would be called 'narrow--50-pct--seed1'"),
        ({"evaluate": [*good["evaluate"], {"name": "Drawn"}]}, "2 evaluations would be called 'drawn'"),
    ):
        suite_file.write_text(yaml.safe_dump({**good, **twice}, sort_keys=False))
        with pytest.raises(ConfigError, match=message):
            load_suite(suite_file)
    dropout = {"0": {"model.options.dropout": 0}, "0.5": {"model.options.dropout": 0.5}}
    lost = r"model\.options\.dropout would be lost, as axes\.model\.narrow sets all of model\.options"
    for wrong in ({"axes": {"dropout": dropout, **good["axes"]}}, {"set": dropout["0.5"]}):
        suite_file.write_text(yaml.safe_dump({**good, **wrong}, sort_keys=False))
        with pytest.raises(ConfigError, match=lost):
            load_suite(suite_file)
    last = {**good, "axes": {**good["axes"], "dropout": dropout}}
    suite_file.write_text(yaml.safe_dump(last, sort_keys=False))
    assert {cell.overrides["model.options.dropout"] for cell in cells(load_suite(suite_file))} == {0, 0.5}
    for nothing in ({"seeds": []}, {"axes": {"data": {}}}):
        suite_file.write_text(yaml.safe_dump({**good, **nothing}))
        with pytest.raises(ConfigError, match=r"seeds|axes\.data"):
            load_suite(suite_file)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"axes": {"model": {"good": {}, "bad": {"model.options": {"width": [2]}}}}},
            "bad--seed0: .*widths",
        ),
        ({"axes": {"size": {"good": {}, "bad": {"training.image_size": 33}}}}, "bad--seed0: .*not divisible"),
        (
            {"axes": {"lr": {"good": {}, "bad": {"training.rate": 1}}}},
            r"suite\.yaml: bad--seed0: unknown setting 'training\.rate'",
        ),
        ({"set": {"data.train.0.split": "held-out"}}, "held-out"),
        (
            {"axes": {"data": {"100 %": {}, "1 %": {"fraction": 0.01}}}},
            r"1-pct--seed0: fraction 0\.01 of the 12 images .*fraction 0\.083 is one",
        ),
        ({"evaluate": [{"name": "none", "index": "nowhere.csv"}]}, "nowhere.csv"),
    ],
)
def test_what_a_later_run_cannot_do_is_said_before_the_first(
    suite_file: Path, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    suite = yaml.safe_load(suite_file.read_text())
    suite["set"] = {"model.architecture": "unet", "model.options": {"widths": [2, 4]}}
    suite_file.write_text(yaml.safe_dump({**suite, **wrong}, sort_keys=False))
    with pytest.raises(UsageError, match=message):
        run_suite(load_suite(suite_file), suite_file, tmp_path / "out", quiet=True, report=print)
    assert not (tmp_path / "out").exists()


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1)), min_size=1, max_size=80))
def test_fractions_are_nested_and_keep_groups_whole(images: list[tuple[int, float]]) -> None:
    rows = [
        IndexRow(image_id=f"i{i}", image=f"i{i}.png", masks=(f"m{i}.png",), dataset="d", group=f"g{group}")
        for i, (group, _) in enumerate(images)
    ]
    areas = [area for _, area in images]
    before: set[str] = set()
    for fraction in (0.1, 0.25, 0.5, 1.0):
        chosen = take_fraction(rows, areas, fraction)
        ids = {row.image_id for row in chosen}
        assert before <= ids
        assert len(ids) >= round(fraction * len(rows))
        groups = {row.group for row in chosen}
        assert ids == {row.image_id for row in rows if row.group in groups}
        before = ids
    assert len(before) == len(rows)


def test_subsets_of_two_data_sets_do_not_meet(tmp_path: Path) -> None:
    found = []
    for name in ("isic", "ham"):
        write_synthetic(tmp_path / name, 4, seed=3, size=(48, 64))
        rows = read_index(tmp_path / name / "index.csv")
        write_index(
            [replace(row, dataset=name, split="train") for row in rows], tmp_path / name / "index.csv"
        )
        found.append(fraction_index(tmp_path / name / "index.csv", "train", 0.5, tmp_path / "subsets"))
    assert [{row.dataset for row in read_index(path)} for path in found] == [{"isic"}, {"ham"}]


def test_holm_matches_the_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
