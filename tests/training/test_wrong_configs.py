"""Every wrong configuration: one clear line, exit code 2, and no run folder."""

from __future__ import annotations

import builtins
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dermseg.apps.cli.main import main
from dermseg.training.check import check_run
from dermseg.training.config import load_config

CASES = [
    ("training.epoch=3", "did you mean 'epochs'"),
    ("model.architecture=unett", "did you mean 'unet'"),
    ("model.architecture=some.where", "'some.where' cannot be imported"),
    ("model.options={width: [8]}", "did you mean 'widths'"),
    ("model.options={widths: [8]}", "at least 2 widths"),
    ("model.options={widths: eight}", "model.options of 'unet'"),
    ("model.architecture=encoder_unet model.options={encoder: resnet34}", "or timm:NAME"),
    ("model.filters=dullrazor", "model.filters: Input should be a list"),
    ("training.loss=focal", "'training.loss.name' is a name, known: name, bce"),
    ("model.architecture=transunet model.options={hidden: 100}", "not divisible by heads=12"),
    ("training.image_size=50", "use 48 or 52"),
    ("training.loss.name=dicee", "unknown loss 'dicee'"),
    ("training.loss.gamma=3", "'gamma' is no setting of the loss 'bce_dice'"),
    ("training.loss.name=ce_dice", "ce_dice' is for softmax outputs"),
    ("model.options.classes=3", "needs 3 masks per image"),
    ("model.outputs=softmax", "needs options.classes of 2 or more"),
    ("training.loss.class_weights=[1,2]", "2 numbers and the model 1 class"),
    ("training.metric=iou", "unknown metric 'iou'"),
    ("training.metric=math.nothing", "has no 'nothing' to call"),
    ("training.schedule=linear", "'one_cycle'"),
    ("training.phases=[{epochs: 9, image_size: 64}]", "none is left"),
    ("augmentation.name=albumentation", "dotted path"),
    ("augmentation.name=math.sqrt", "augmentation 'math.sqrt' fails"),
    ("model.filters=[dull_razor]", "'dullrazor'"),
    ("data.train.0.split=held-out", "no image has split 'held-out'"),
    ("data.train.0.index=nowhere.csv", "no such index"),
    ("data.cache_dir=${NOWHERE_AT_ALL}", "NOWHERE_AT_ALL"),
    ("model.init_from=nowhere", "'nowhere' does not exist"),
    ("model.init_from=default", "of another network"),
    ("model.average_with_start=0.5", "needs init_from"),
    ("training.device=tpu", "use auto, cpu, cuda"),
    ("training.lr=0", "greater than 0"),
    ("training.lr=.inf", "finite number"),
    ("training.inference_size=8192", "less than or equal to 4096"),
    ("augmentation.scale=[1.4, 0.85]", "the smallest factor first"),
    ("augmentation.scale=[0, 1]", "both above 0"),
    ("model.std=[0, 1, 1]", "images are divided by it"),
    ("model.options.classes=0", "a whole number from 1 on"),
    ("model.options.widths=[0, 4]", "fails on a batch of 2 of 32 x 32"),
    ("model.options.widths=[-4, 4]", "model.options of 'unet'"),
    ("seed=18446744073709551616", "less than 9223372036854775808"),
    ("training", "key=value"),
    ("data.train.3.split=x", "there is no item '3'"),
    ("data.train.split=x", "there is no item 'split'"),
    ("training.lr=[", "is not YAML"),
    ("name=2026-13-01", "is not YAML: month must be in 1..12"),
    ("data.teachers=[nope]", "there is no bundle 'nope'"),
    ("training.phases=[{epochs: 3, image_size: 32}]", "--set training.phases=[]"),
]


def refused(capsys: pytest.CaptureFixture[str], run: Path, *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["train", *arguments, "-o", str(run)])
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert not run.exists()
    return captured.err


@pytest.mark.parametrize(("settings", "message"), CASES, ids=[case[0] for case in CASES])
def test_one_line_and_exit_code_2(
    settings: str, message: str, tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any
) -> None:
    words = settings.split(" ") if settings.startswith("model.architecture=") else [settings]
    if len(words) > 1:  # one setting with a blank in its value
        words = [words[0], " ".join(words[1:])]
    arguments = [part for word in words for part in ("--set", word)]
    assert message in refused(capsys, tmp_path / "run", str(tiny_config[0]), *arguments)


def test_the_configuration_that_a_variable_names(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "DERMSEG_CONFIG" in refused(capsys, tmp_path / "run")
    monkeypatch.setenv("DERMSEG_CONFIG", str(tiny_config[0]))
    assert "did you mean 'epochs'" in refused(capsys, tmp_path / "run", "--set", "training.epoch=3")
    assert "nowhere" in refused(capsys, tmp_path / "run", str(tmp_path / "nowhere.yaml")), (
        "a named file goes first"
    )
    (tmp_path / "dated.yaml").write_text("name: 2026-13-01\n", encoding="utf-8")
    assert "dated.yaml: is not YAML: month" in refused(capsys, tmp_path / "run", str(tmp_path / "dated.yaml"))


def test_a_gpu_that_is_not_there(tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    arguments = (str(tiny_config[0]), "--set", "training.device=cuda")
    assert "no GPU is available" in refused(capsys, tmp_path / "run", *arguments)


def test_a_batch_norm_that_would_see_one_number(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any
) -> None:
    one = ("training.batch_size=1", "training.image_size=32", "training.phases=[]")
    settings = ("model={architecture: encoder_unet}", *one)
    arguments = [part for each in settings for part in ("--set", each)]
    assert "batch of 1 of 32 x 32: Expected more than 1 value" in refused(
        capsys, tmp_path / "run", str(tiny_config[0]), *arguments
    )
    check_run(load_config(tiny_config[0], [*settings, "training.freeze_norm=true"]))


def test_images_that_are_missing(tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "discs" / "images" / "03.png").unlink()
    assert "1 of the 16 files" in refused(capsys, tmp_path / "run", str(tiny_config[0]))


def test_an_index_that_was_not_split(tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any) -> None:
    index = tmp_path / "discs" / "index.csv"
    index.write_text(index.read_text().replace(",val,", ",test,"))
    said = refused(capsys, tmp_path / "run", str(tiny_config[0]))
    assert "no image has split 'val'" in said and "splits in this index: test, train" in said
    index.write_text(index.read_text().replace(",test,", ",,").replace(",train,", ",,"))
    assert f"dermseg data split {index} -o {index} --overwrite" in refused(
        capsys, tmp_path / "run", str(tiny_config[0])
    )


def test_a_place_where_no_cache_can_be_kept(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    arguments = (str(tiny_config[0]), "--set", f"data.cache_dir={tmp_path / 'file' / 'cache'}")
    said = refused(capsys, tmp_path / "run", *arguments)
    assert "the cache cannot be kept here: is a file" in said and "data.cache_dir" in said
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "the cache needs" in refused(capsys, tmp_path / "run", str(tiny_config[0]))


def test_weights_of_another_network(tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any) -> None:
    save_file({"head.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    arguments = (str(tiny_config[0]), "--set", f"model.init_from={tmp_path / 'other.safetensors'}")
    assert "of another network" in refused(capsys, tmp_path / "run", *arguments)


def test_pretrained_weights_that_are_not_installed(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name.endswith("pytorch_model") else find(name, *rest),
    )
    arguments = ("--set", "model={architecture: encoder_unet, options: {pretrained: true}}")
    assert "dermseg[weights]" in refused(capsys, tmp_path / "run", str(tiny_config[0]), *arguments)


def test_timm_that_is_not_installed(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def without_timm(name: str, *rest: Any, **more: Any) -> Any:
        if name == "timm":
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_timm)
    arguments = ("--set", "model={architecture: encoder_unet, options: {encoder: 'timm:resnet18'}}")
    assert "dermseg[timm]" in refused(capsys, tmp_path / "run", str(tiny_config[0]), *arguments)
