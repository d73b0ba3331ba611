"""A run end to end on tiny data: it learns, and an interruption changes nothing."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dermseg.apps.cli.main import main
from dermseg.errors import ImageError, TrainingError, UsageError
from dermseg.locks import lock_file
from dermseg.training import environment
from dermseg.training.checkpoint import BEST, CONFIG, LAST, load_state
from dermseg.training.config import PhaseConfig, SourceConfig, TrainingConfig, load_config
from dermseg.training.device import lacks_memory
from dermseg.training.display import Display
from dermseg.training.find_batch import find_batch_size
from dermseg.training.log import read_events
from dermseg.training.loop import Trainer
from dermseg.training.progress import Progress, beginning, ending
from dermseg.training.rows import open_cache, source_names
from dermseg.training.run import train
from dermseg.training.step import Step


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_state(run / LAST)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_learns_and_leaves_what_is_promised(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    config = load_config(tiny_config[0], ["training.epochs=12", "training.ema_decay=0.8", "name=läsion"])
    progress = train(config, tmp_path / "run", quiet=True)
    assert progress.best_dice > 0.8
    run = tmp_path / "run"
    assert "name: läsion" in (run / "config.yaml").read_text("utf-8")
    assert {p.name for p in run.iterdir()} >= {"config.yaml", "environment.json", "metrics.jsonl", LAST, BEST}
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validations = [e for e in events if e["event"] == "val"]
    assert len(validations) == 12
    assert max(e["dice"] for e in validations) == progress.best_dice
    with pytest.raises(UsageError, match="holds a run already"):
        train(config, run, quiet=True)


def test_two_trainings_never_share_a_folder(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    config, run = load_config(tiny_config[0]), tmp_path / "run"
    train(config, run, quiet=True)
    before = (run / LAST).read_bytes()
    with (run / CONFIG).open("rb") as other:
        lock_file(other)
        with pytest.raises(UsageError, match="another process is training") as caught:
            train(config, run, resume=True, quiet=True)
        assert caught.value.file == str(run)
    assert (run / LAST).read_bytes() == before
    train(config, run, resume=True, quiet=True)


def test_a_drive_without_locks_is_no_obstacle(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("dermseg.locks._lock", refuse)
    assert train(load_config(tiny_config[0]), tmp_path / "run", quiet=True).finished


def test_resuming_after_each_checkpoint_ends_with_the_same_weights(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(tiny_config[0])
    train(config, tmp_path / "whole", quiet=True)

    class StopError(Exception):
        pass

    save = Trainer._save

    def save_and_stop(self: Trainer) -> None:
        save(self)
        raise StopError

    monkeypatch.setattr(Trainer, "_save", save_and_stop)
    broken = tmp_path / "broken"
    stops = 0
    while True:
        try:
            train(config, broken, resume=stops > 0, quiet=True)
            break
        except StopError:
            stops += 1
    assert stops >= 5  # in the middle of epochs and at their ends
    assert same(weights(tmp_path / "whole"), weights(broken))
    assert same(load_file(tmp_path / "whole" / BEST), load_file(broken / BEST))
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "broken")]
    assert logs[0] == logs[1]


def test_sigkill_and_resume_through_the_command_line(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    config, _ = tiny_config
    command = [sys.executable, "-m", "dermseg.apps.cli.main", "train"]
    run = tmp_path / "run"
    process = subprocess.Popen([*command, str(config), "-o", str(run)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run / BEST).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
    process.wait()
    subprocess.run([*command, "--resume", str(run)], check=True, capture_output=True)
    train(load_config(config), tmp_path / "whole", quiet=True)
    assert same(weights(tmp_path / "whole"), weights(run))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epochs=9", "training.epochs is 9 and was 3 when the run began"),
        ("model.options.widths=[4, 8]", r"widths is \[4, 8\] and was \[4, 8, 16\]"),
        ("training.optimizer=sgd", "optimizer is 'sgd' and was 'adamw'"),
        ("training.ema_decay=null", "ema_decay is None"),
    ],
)
def test_a_run_does_not_go_on_under_other_settings(
    tiny_config: tuple[Path, Any], tmp_path: Path, setting: str, message: str
) -> None:
    run = tmp_path / "run"
    train(load_config(tiny_config[0]), run, quiet=True)
    before = (run / LAST).read_bytes()
    with pytest.raises(UsageError, match=message) as caught:
        train(load_config(tiny_config[0], [setting]), run, resume=True, quiet=True)
    assert f"--from {run}" in str(caught.value.hint)
    assert (run / LAST).read_bytes() == before


def test_a_run_goes_on_elsewhere_but_not_with_other_images(
    tiny_config: tuple[Path, Any], tmp_path: Path
) -> None:
    run, discs = tmp_path / "run", tmp_path / "discs"
    train(load_config(tiny_config[0]), run, quiet=True)
    moved = discs.rename(tmp_path / "moved") / "index.csv"
    there = [f"data.{part}.0.index={moved}" for part in ("train", "val")]
    settings = [*there, "name=other", "training.threads=2", "training.inference_size=64"]
    train(load_config(tiny_config[0], settings), run, resume=True, quiet=True)
    header, *rows = moved.read_text().splitlines(keepends=True)
    split_anew = [rows[0].replace(",train,", ",val,"), *rows[1:-1], rows[-1].replace(",val,", ",train,")]
    moved.write_text("".join([header, *split_anew]))
    with pytest.raises(UsageError, match="have other images"):
        train(load_config(tiny_config[0], settings), run, resume=True, quiet=True)
    moved.write_text("".join([header, *rows[:-1]]))
    with pytest.raises(UsageError, match=r"have \[8, 3\] images and had \[8, 4\]"):
        train(load_config(tiny_config[0], settings), run, resume=True, quiet=True)


def test_a_run_goes_on_without_what_it_started_from(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    train(load_config(tiny_config[0]), tmp_path / "first", quiet=True)
    config = load_config(tiny_config[0], [f"model.init_from={tmp_path / 'first'}"])
    train(config, tmp_path / "second", quiet=True)
    shutil.rmtree(tmp_path / "first")
    assert train(config, tmp_path / "second", resume=True, quiet=True).finished


def test_early_stopping_counts_validations(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["training.lr=1e-12", "training.epochs=9", "training.early_stopping_patience=2"]
    progress = train(load_config(tiny_config[0], settings), tmp_path / "run")
    assert progress.finished
    assert progress.epoch < 9
    said = capsys.readouterr().err
    assert "36 steps are few" in said and "--from default" in said
    stopped = f"stopped early, after {progress.epoch} of 9 epochs: 2 validations without improvement"
    assert f"{stopped} (training.early_stopping_patience=2)" in said
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert next(e["step"] for e in events if e["event"] == "train") == 1
    again = train(load_config(tiny_config[0], settings), tmp_path / "run", resume=True)
    said = capsys.readouterr().err
    assert again == progress and f"come to its end, after {progress.epoch} epochs" in said
    assert f"{tmp_path / 'run' / 'config.yaml'} --from {tmp_path / 'run'}" in said and "are few" not in said


def test_too_little_memory_is_said_in_one_line(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(_: Step, parts: Any) -> torch.Tensor:
        # as a GPU's, it is a RuntimeError of torch and no MemoryError
        return torch.zeros(()) if len(parts[0][0]) == 1 else torch.empty(10**15)

    monkeypatch.setattr(Step, "__call__", step)
    with pytest.raises(
        TrainingError, match=r"not enough memory to train \(training.batch_size=2\)"
    ) as caught:
        train(load_config(tiny_config[0]), tmp_path / "run", quiet=True)
    assert "--find-batch-size" in str(caught.value.hint)
    trials = find_batch_size(load_config(tiny_config[0]))
    assert [(trial.batch_size, trial.fits) for trial in trials] == [(1, True), (2, False)]
    assert lacks_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))


def test_no_run_ends_before_it_has_seen_images_of_its_size() -> None:
    def epochs(t: TrainingConfig) -> int:
        progress = Progress()
        while not progress.finished:
            progress.validated(0.5, 0.5, t)  # the first is the best
            progress.next_epoch(t)
        return progress.epoch

    whole = TrainingConfig(epochs=20, image_size=64, early_stopping_patience=2)
    assert epochs(whole) == 3
    phases = (PhaseConfig(epochs=4, image_size=32),)
    assert epochs(whole.model_copy(update={"phases": phases})) == 4 + 2


def test_a_run_that_found_nothing_says_so() -> None:
    t = TrainingConfig(epochs=2)
    assert ending(Progress(epoch=2, best_dice=0.7), t) == []
    (line,) = ending(Progress(epoch=2, best_dice=0.0), t)
    assert "no validation found any lesion" in line and "--from default" in line


def test_what_cannot_be_exported_is_said_before_hours_of_training(tiny_config: tuple[Path, Any]) -> None:
    for classes in (2, 3):
        settings = [f"model.options.classes={classes}", "model.outputs=softmax", "training.loss.name=ce_dice"]
        said = " ".join(beginning(load_config(tiny_config[0], settings), 1000))
        assert ("cannot be exported" in said) == (classes > 2)


def test_a_setting_that_validation_does_not_know_is_said(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["data.val.0.per_epoch=2", "training.epochs=1", "training.phases=[]"]
    train(load_config(tiny_config[0], settings), tmp_path / "run")
    assert "data.val.0.per_epoch has no effect" in capsys.readouterr().err


def test_the_loss_that_is_shown_is_a_mean_of_steps_that_were_read(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["training.epochs=1", "training.phases=[]", "training.batch_size=1"]
    settings += ["training.checkpoint_every_steps=100"]  # a checkpoint reads them too
    losses, shown = list[float](), list[float]()
    learn = Step.__call__

    def step(self: Step, parts: Any) -> torch.Tensor:
        losses.append(float(loss := learn(self, parts)))
        return loss

    monkeypatch.setattr(Step, "__call__", step)
    monkeypatch.setattr(Display, "update", lambda _, progress, *__: shown.append(progress.mean_loss))
    trainer = Trainer(load_config(tiny_config[0], settings), tmp_path, quiet=True)
    trainer.read_every = 3  # as on a GPU, where reading each of them would stop it
    trainer.run()
    assert len(losses) == 8
    read = [0, 0, 3, 3, 3, 6, 6, 6]
    assert shown[:2] == [0, 0]
    assert shown[2:] == pytest.approx([sum(losses[:n]) / n for n in read[2:]])


def test_images_that_are_kept_smaller_than_the_network_sees_them_are_a_warning(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = ["training.epochs=1", "training.phases=[]"]
    train(load_config(tiny_config[0], once), tmp_path / "a")
    assert "data.cache_size" not in capsys.readouterr().err
    train(load_config(tiny_config[0], [*once, "training.image_size=64"]), tmp_path / "b")
    said = capsys.readouterr().err
    assert "kept at 48 px (data.cache_size) and enlarged to 64 px" in said
    assert "--set data.cache_size=64" in said


def test_a_run_says_what_it_was_trained_on_and_repeats_few_images(
    tiny_config: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, content = tiny_config
    index = "${DERMSEG_INDEX:-index.csv}"
    content["data"] |= {
        "train": [{"index": index, "at_least": 20}],
        "val": [{"index": index, "split": "val"}],
    }
    content["training"] |= {"epochs": 1, "phases": []}
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("DERMSEG_INDEX", "discs/index.csv")
    monkeypatch.chdir(tmp_path)
    progress = train(load_config(path), tmp_path / "run")
    assert progress.step == 10, "8 images, taken until there are 20, in batches of 2"
    assert set(progress.val) == {"val:index"}
    assert "${" not in capsys.readouterr().err
    monkeypatch.delenv("DERMSEG_INDEX")
    monkeypatch.chdir(tmp_path.parent)
    config = load_config(tmp_path / "run" / CONFIG)
    assert {source.index for source in (*config.data.train, *config.data.val)} == {
        str(tmp_path / "discs" / "index.csv")
    }
    assert train(config, tmp_path / "run", resume=True, quiet=True).step == 10


def test_what_is_missing_is_said_before_work_starts(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = tiny_config
    with pytest.raises(UsageError, match=r"no image has split 'held-out' \(splits in this index: .*train"):
        train(load_config(path, ["data.train.0.split=held-out"]), tmp_path / "a", quiet=True)
    with pytest.raises(UsageError, match="no run here"):
        train(load_config(path), tmp_path / "b", resume=True, quiet=True)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no GPU"):
            train(load_config(path, ["training.device=cuda"]), tmp_path / "c", quiet=True)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.yaml").write_text(path.read_text())
    (tmp_path / "d" / LAST).write_bytes(b"not a checkpoint")
    for words, hint in (
        (["--resume", str(tmp_path / "d" / LAST)], f"its folder: {tmp_path / 'd'}"),
        (["--resume", str(tmp_path / "a")], "the folder that 'dermseg train' wrote"),
        (["--resume", str(tmp_path / "d"), "--set", "training.epochs=5"], f"--from {tmp_path / 'd'} -o"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["train", *words])
        assert end.value.code == 2 and hint in capsys.readouterr().err
    with pytest.raises(TrainingError, match=r"damaged.*16 bytes.*--from"):
        train(load_config(path), tmp_path / "d", resume=True, quiet=True)
    (tmp_path / "d" / LAST).rename(tmp_path / "d" / BEST)
    with pytest.raises(UsageError, match=r"last\.pt is gone"):
        train(load_config(path), tmp_path / "d", resume=True, quiet=True)
    train(load_config(path), tmp_path / "e", quiet=True)
    (tmp_path / "e" / BEST).unlink()
    with pytest.raises(UsageError, match=r"best\.safetensors is gone, the weights of epoch"):
        train(load_config(path), tmp_path / "e", resume=True, quiet=True)


def test_slow_decoding_is_not_silent(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, said, clock = load_config(tiny_config[0]), list[str](), itertools.count(0, 4)
    monkeypatch.setattr("dermseg.training.rows.time.monotonic", lambda: next(clock))
    open_cache(config, config.data.train[0], 1, said.append)
    assert len(said) >= 3 and said[-1].endswith("train: 8/8"), "every ten seconds, and at the end"


def test_a_damaged_image_leads_to_what_finds_them_all(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    image = tmp_path / "discs" / "images" / "03.png"
    image.write_bytes(image.read_bytes()[:100])
    with pytest.raises(ImageError) as caught:
        train(load_config(tiny_config[0]), tmp_path / "run", quiet=True)
    assert caught.value.file == str(image)
    assert f"dermseg data check {tmp_path / 'discs' / 'index.csv'}" in str(caught.value)


def test_each_validation_has_its_figure_where_indexes_have_one_name(
    tiny_config: tuple[Path, Any], tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "discs", tmp_path / "other" / "discs")
    val = [
        {"index": str(tmp_path / folder / "index.csv"), "split": "val"} for folder in ("discs", "other/discs")
    ]
    overrides = [f"data.val={json.dumps(val)}", "training.epochs=2", "training.phases=[]"]
    progress = train(load_config(tiny_config[0], overrides), tmp_path / "run", quiet=True)
    assert list(progress.val) == [f"val:{tmp_path.name}/discs/index", "val:other/discs/index"]
    assert read_events(tmp_path / "run" / "metrics.jsonl")[-1].keys() > set(progress.val)
    twice = (SourceConfig(index="a/index.csv"), SourceConfig(index="a/index.csv", limit=3))
    assert source_names(twice) == ["train:index 1", "train:index 2"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_the_source_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    file = tmp_path / ".venv" / "environment.py"
    file.parent.mkdir()
    file.write_text("")
    monkeypatch.setattr(environment, "__file__", str(file))
    git("init")
    git("commit", "--allow-empty", "-m", "of others")
    assert environment.describe_environment()["commit"] is None  # installed below another project
    git("add", ".")
    git("commit", "-m", "source")
    assert environment.describe_environment()["commit"] == git("rev-parse", "HEAD")
