"""What the engine offers beside the loop itself: several classes, filters, mirror, records, batch size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from dermseg.apps.cli.main import main
from dermseg.data.cache import Cache
from dermseg.data.index import open_mask, read_index
from dermseg.errors import UsageError
from dermseg.experiments.predict import RunModel
from dermseg.images.filters import apply_filters
from dermseg.images.load import load_image
from dermseg.images.masks import load_mask
from dermseg.inference.preprocess import to_input
from dermseg.training import find_batch
from dermseg.training.checkpoint import BEST, LAST, load_state
from dermseg.training.config import TrainingConfig, load_config, network_preprocessing
from dermseg.training.loop import Trainer
from dermseg.training.progress import Progress
from dermseg.training.run import train
from dermseg.training.validation import Validation


def two_masks(index: Path) -> None:
    """Give every image of the discs a second mask: its left half within the first."""
    folder = index.parent
    text = index.read_text()
    for path in sorted((folder / "masks").glob("??.png")):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        xs = np.flatnonzero(mask.any(0))
        left = mask.copy()
        left[:, int(xs.mean()) :] = 0
        cv2.imwrite(str(path.with_name(f"{path.stem}-left.png")), left)
        text = text.replace(f"masks/{path.name},", f"masks/{path.name};masks/{path.stem}-left.png,")
    index.write_text(text)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.options.classes=2", "training.metric=micro_jaccard"],
        ["model.options.classes=3", "model.outputs=softmax", "training.loss.name=ce_dice"],
    ],
    ids=["multi-label", "multi-class"],
)
def test_several_classes_train(tiny_config: tuple[Path, Any], tmp_path: Path, overrides: list[str]) -> None:
    two_masks(tmp_path / "discs" / "index.csv")
    settings = ["training.epochs=10", "training.ema_decay=0.8", "training.phases=[]", *overrides]
    progress = train(load_config(tiny_config[0], settings), tmp_path / "run", quiet=True)
    assert progress.best_dice > 0.3
    model, row = RunModel(tmp_path / "run"), read_index(tmp_path / "discs" / "index.csv")[0]
    left, whole = (load_mask(open_mask(row, number)) for number in (1, 0))
    reference = model.reference(replace(row, masks=row.masks[::-1]))  # the first, or all classes together
    assert left.sum() < whole.sum()
    assert np.array_equal(reference, left if model.config.model.outputs == "sigmoid" else whole)
    later = [replace(row, image_id=name, subject="p", group=f"discs/{name}") for name in "ab"]
    assert len(set(model.evaluate(later).clusters.values())) == 1, "a patient who was noted later"


def test_metrics_are_what_their_names_say() -> None:
    rng = np.random.default_rng(0)
    masks = (rng.random((5, 8, 8, 2)) < 0.4).astype(np.uint8) * 255
    masks[3, ..., 1] = 0
    images = rng.integers(0, 255, (5, 8, 8, 3), np.uint8)
    cache = Cache(images, masks, tuple("abcde"))

    class Red(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2] - 128

    found = np.moveaxis(images[..., :2] > 128, -1, 1)
    reference = np.moveaxis(masks > 127, -1, 1)
    both, either = (found & reference).sum((2, 3)), (found | reference).sum((2, 3))
    sizes = found.sum((2, 3)) + reference.sum((2, 3))
    expected = {
        "dice": (2 * both / sizes).mean(),
        "jaccard": (both / either).mean(),
        "micro_jaccard": both.sum() / either.sum(),
    }
    for name, value in expected.items():
        score, dice = Validation(name, torch.Tensor.float, softmax=False).scores(Red(), cache, 8)
        assert score == pytest.approx(value)
        assert dice == pytest.approx(expected["dice"])


def test_plateau_lowers_the_rate_when_torch_would() -> None:
    settings = TrainingConfig(schedule="plateau", plateau_patience=2, plateau_factor=0.5, epochs=100)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=2, threshold=0.0
    )
    ours = Progress()
    for score in np.random.default_rng(3).normal(0, 1, 60).cumsum().tolist():
        ours.validated(score, score, settings)
        theirs.step(score)
        assert ours.lr_scale == optimizer.param_groups[0]["lr"]
    assert ours.lr_scale < 0.1


def test_fp16_with_its_scaler_resumes_exactly(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(
        tiny_config[0], ["training.autocast=fp16", "training.epochs=2", "training.accumulate=2"]
    )
    train(config, tmp_path / "whole", quiet=True)
    save = Trainer._save

    def save_and_stop(self: Trainer) -> None:
        save(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", quiet=True)
    monkeypatch.undo()
    train(config, tmp_path / "broken", resume=True, quiet=True)
    whole, broken = (load_state(tmp_path / name / LAST) for name in ("whole", "broken"))
    assert whole["scaler"]["scale"] > 0
    assert whole["scaler"] == broken["scaler"]
    assert all(torch.equal(whole["model"][name], broken["model"][name]) for name in whole["model"])


def test_filters_are_the_same_in_training_and_in_the_bundle(
    tiny_config: tuple[Path, Any], tmp_path: Path
) -> None:
    names = ("dullrazor", "shades_of_grey", "fft_denoise")
    config = load_config(tiny_config[0], [f"model.filters=[{', '.join(names)}]"])
    (tmp_path / "run").mkdir()
    trainer = Trainer(config, tmp_path / "run", quiet=True)
    cached = trainer.train_sources[0].cache.images[0]
    pixels = load_image(tmp_path / "discs" / "images" / "00.png").pixels
    assert np.array_equal(cached, apply_filters(pixels, names))
    assert not np.array_equal(cached, pixels)
    seen_in_training = trainer.step.normalize(torch.tensor(cached).permute(2, 0, 1)[None])[0].numpy()
    card = network_preprocessing(config, 48)
    assert card.filters == names
    assert np.abs(to_input(pixels, card) - seen_in_training).max() < 1e-5


def test_a_run_goes_on_from_its_mirror_and_a_lost_drive_does_not_end_it(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config = load_config(tiny_config[0])
    train(config, tmp_path / "whole", quiet=True)
    save, saves = Trainer._save, []

    def stop_at_the_third(self: Trainer) -> None:
        save(self)
        saves.append(1)
        if len(saves) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", quiet=True, mirror=tmp_path / "drive")
    monkeypatch.undo()
    copy = tmp_path / "drive" / "run"
    assert not [p for p in copy.rglob("*.tmp")]
    assert {p.name for p in copy.iterdir()} == {p.name for p in (tmp_path / "run").iterdir()}
    train(config, copy, resume=True, quiet=True)
    for name in (LAST, "whole"):
        assert (tmp_path / "whole").exists(), name
    a, b = (load_state(folder / LAST)["model"] for folder in (tmp_path / "whole", copy))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (copy / "metrics.jsonl").read_text()

    # what is there is the only copy, perhaps: a new run of its name leaves it alone, and so does another one
    short = load_config(tiny_config[0], ["training.epochs=2"])
    kept = (copy / LAST).read_bytes()
    with pytest.raises(UsageError, match="holds a run of this name") as refused:
        train(short, tmp_path / "new" / "run", quiet=True, mirror=tmp_path / "drive")
    assert f"--resume {copy}" in str(refused.value) and not (tmp_path / "new").exists()
    train(short, tmp_path / "new" / "run", quiet=True)
    with pytest.raises(UsageError, match="another run of this name"):
        train(short, tmp_path / "new" / "run", resume=True, quiet=True, mirror=tmp_path / "drive")
    with pytest.raises(UsageError, match="onto itself"):
        train(config, copy, resume=True, quiet=True, mirror=tmp_path / "drive")
    assert (copy / LAST).read_bytes() == kept
    train(config, tmp_path / "run", resume=True, quiet=True, mirror=tmp_path / "drive")

    (tmp_path / "file").write_text("not a folder")
    train(load_config(tiny_config[0], ["training.epochs=2"]), tmp_path / "b", mirror=tmp_path / "file")
    assert capsys.readouterr().err.count("the mirror cannot be written") == 1


def test_a_run_leaves_curves_and_pictures(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    train(load_config(tiny_config[0]), tmp_path / "run", quiet=True)
    curves = cv2.imread(str(tmp_path / "run" / "curves.png"))
    assert curves is not None
    assert curves.shape[1] > 800
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"val/dice", "val/train_loss"} <= set(tags["scalars"])
    assert tags["images"] == ["validation"]
    assert len(events.Images("validation")) == 3


def test_old_checkpoints_say_what_was_best() -> None:
    old = {"epoch": 3, "step": 40, "best_dice": 0.9, "best_epoch": 2, "val": {"val:isic": 0.9}}
    progress = Progress.from_json(json.dumps(old))
    assert (progress.best_score, progress.best_dice, progress.epoch) == (0.9, 0.9, 3)
    assert Progress.from_json(json.dumps({"best_dice": -1.0, "best_epoch": -1})).best_score is None


def test_the_batch_size_finder_stops_where_memory_ends(
    tiny_config: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(find_batch, "LARGEST", 8)
    with pytest.raises(SystemExit) as end:
        main(["train", str(tiny_config[0]), "--find-batch-size", "--json"])
    assert end.value.code == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["batch_size"] == 8
    assert [trial["batch_size"] for trial in found["trials"]] == [1, 2, 4, 8]
    assert "--set training.batch_size=8" in captured.err
    with pytest.raises(SystemExit) as end:
        main(["train", str(tiny_config[0]), "--find-batch-size", "--mirror", str(tmp_path)])
    assert end.value.code == 2 and "--mirror can have no effect" in capsys.readouterr().err
    # 1 GB per image and 25 GB in all, of which a tenth of what is free stays free
    held = [0.0]

    def measure(_step: Any, batch: int, *_: Any) -> find_batch.Trial:
        held[0] = float(batch)
        return find_batch.Trial(batch, True, held[0], 1.0)

    monkeypatch.setattr(find_batch, "LARGEST", 64)
    monkeypatch.setattr(find_batch, "_free", lambda: int((25 - held[0]) * 1e9))
    monkeypatch.setattr(find_batch, "_measure", measure)
    trials = find_batch.find_batch_size(load_config(tiny_config[0], ["data.train.0.at_least=64"]))
    tried = [1, 2, 4, 8, 16, 32, 24, 28, 26]
    assert [(t.batch_size, t.fits) for t in trials] == [(n, n <= 24) for n in tried]
    assert find_batch.largest(trials).batch_size == 24
    # a batch is never larger than an epoch
    held[0] = 0.0
    trials = find_batch.find_batch_size(load_config(tiny_config[0], ["data.train.0.per_epoch=11"]))
    assert [(t.batch_size, t.fits) for t in trials] == [(n, True) for n in (1, 2, 4, 8, 11)]
    # one image of 32 px leaves a batch norm a single number per channel: not the end
    one = [
        "model.architecture=encoder_unet",
        "model.options={}",
        "training.image_size=32",
        "training.phases=[]",
        "training.inference_size=null",
    ]
    monkeypatch.undo()
    monkeypatch.setattr(find_batch, "LARGEST", 4)
    trials = find_batch.find_batch_size(load_config(tiny_config[0], one))
    assert [(t.batch_size, t.fits) for t in trials] == [(2, True), (4, True)]


def test_best_weights_are_those_of_the_metric(tiny_config: tuple[Path, Any], tmp_path: Path) -> None:
    progress = train(load_config(tiny_config[0], ["training.metric=jaccard"]), tmp_path / "run", quiet=True)
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scores = [event["score"] for event in events if event["event"] == "val"]
    assert progress.best_score == max(scores)
    assert (tmp_path / "run" / BEST).exists()


def test_a_network_of_random_weights_finds_lesions_as_soon_as_it_has_learnt_them(
    tiny_config: tuple[Path, Any], tmp_path: Path
) -> None:
    settings = ["model.architecture=mobile_unet", "model.options={}", "training.phases=[]"]
    settings += ["training.epochs=12", "training.validate_every=12", "training.ema_decay=0.8"]
    config = load_config(tiny_config[0], settings)
    # with the slow norms of published weights it has the same loss, and a Dice of 0 for hundreds of steps
    assert train(config, tmp_path / "run", quiet=True).best_dice > 0.7
    for known in ("model.init_from=default", "model.options.pretrained=true", "model.architecture=a.b"):
        assert config.model.from_nothing and not load_config(tiny_config[0], [known]).model.from_nothing
