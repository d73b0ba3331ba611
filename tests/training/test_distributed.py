"""Two processes with gloo against one: the same figures, one writer, and a clear end when one dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dermseg.errors import ConfigError
from dermseg.experiments.validation import VALIDATION
from dermseg.training.check import check_run
from dermseg.training.checkpoint import BEST, LAST, load_state
from dermseg.training.config import load_config
from dermseg.training.distributed import World
from dermseg.training.loop import Trainer
from dermseg.training.run import train

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


def torchrun(*arguments: str | Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """``dermseg train`` below ``torchrun``, as a user would start it."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        "-m", "dermseg.apps.cli.main", "train", *map(str, arguments),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)


def write(path: Path, content: dict[str, Any], **training: Any) -> Path:
    content["model"]["options"]["dropout"] = 0.0  # each process drops channels of its own
    content["training"] |= training
    path.write_text(yaml.safe_dump(content))
    return path


def events(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == "val"]


def test_two_processes_learn_what_one_does(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    # a loss with weights and several batches per step, so that their means over processes are tried too
    loss = {"small_lesion_weight": 2.0, "small_lesion_area": 0.15}
    config = write(
        tiny_config[0], tiny_config[1], epochs=2, phases=[], loss=loss, accumulate=2, autocast="off"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    result = torchrun(config, "-o", two)
    assert result.returncode == 0, result.stderr
    assert "FutureWarning" not in result.stderr
    progress = train(load_config(config), one, quiet=True)

    mine, theirs = events(one), events(two)
    assert [e["step"] for e in mine] == [e["step"] for e in theirs]  # written once
    for a, b in zip(mine, theirs, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["dice"] == pytest.approx(b["dice"], abs=2e-3)
    states = [load_state(run / LAST)["model"] for run in (one, two)]
    for name, value in states[0].items():
        assert torch.allclose(value.float(), states[1][name].float(), rtol=1e-3, atol=1e-4), name
    assert result.stderr.count("best val Dice") == 1
    assert {p.name for p in two.iterdir()} == {p.name for p in one.iterdir()} | {VALIDATION}  # a report, once
    assert (two / BEST).exists()
    assert progress.step == 4


PLUGIN = """
import os, signal
from dermseg.errors import TrainingError
from dermseg.training.losses import segmentation_loss
calls = 0
def loss(logits, target):
    global calls
    calls += 1
    if calls == 3 and os.environ["RANK"] == "1":
        if os.environ.get("HOW") == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise TrainingError("the camera fell into the sea")
    return segmentation_loss(logits, target)
"""


@pytest.mark.parametrize(
    "how",
    ["raise", pytest.param("kill", marks=pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX"))],
)
def test_a_process_that_dies_ends_the_run_with_its_own_message(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / "dying.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("HOW", how)
    config = write(tiny_config[0], tiny_config[1], loss={"name": "dying.loss"})
    result = torchrun(config, "-o", tmp_path / "run")
    assert result.returncode != 0
    if how == "raise":
        assert "error: rank 1: the camera fell into the sea" in result.stderr
    else:
        assert "SIGKILL" in result.stderr
    assert 'Traceback (most recent call last):\n  File "' + str(Path(__file__)) not in result.stderr


def test_a_wrong_setting_is_said_once(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    config = write(tiny_config[0], tiny_config[1], batch_size=3)
    result = torchrun(config, "-o", tmp_path / "run")
    assert result.returncode != 0
    assert result.stderr.count("error: rank 0: a batch of 3 images cannot be shared equally") == 1
    assert not (tmp_path / "run").exists()


def test_few_images_are_shared_equally_or_refused(tiny_config: tuple[Path, Any]) -> None:
    few = ["training.batch_size=6", "data.train.0.limit=3"]
    with pytest.raises(ConfigError, match="a batch of 3 images cannot be shared equally by 2 processes"):
        check_run(load_config(tiny_config[0], few), World(0, 2, 0))
    with pytest.raises(ConfigError, match="a batch of 1 images") as caught:
        check_run(load_config(tiny_config[0], [*few, "data.train.0.limit=1"]), World(0, 2, 0))
    assert "fewer processes" in str(caught.value.hint)
    check_run(load_config(tiny_config[0], [*few, "data.train.0.at_least=6"]), World(0, 2, 0))


def test_ranks_share_what_there_is(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    config = load_config(tiny_config[0], ["training.batch_size=6", "data.train.0.limit=4"])
    shares = []
    for rank in (0, 1):
        trainer = Trainer(config, tmp_path / f"rank{rank}", quiet=True)
        trainer.world = World(rank, 2, 0)
        shares.append([x for x, _ in trainer.batches(0)])
    assert [len(share) for share in shares] == [1, 1]
    assert [len(share[0]) for share in shares] == [2, 2]
