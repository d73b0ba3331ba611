"""Fine-tuning starts with exactly the network that the bundle, run or file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from dermseg.apps.cli.main import main
from dermseg.data.synthetic import synthesize
from dermseg.errors import ConfigError, ModelError
from dermseg.export.onnx import to_onnx
from dermseg.inference.bundle import load_bundle
from dermseg.inference.predictor import load_model
from dermseg.models import build_model
from dermseg.models.stored import read_parameters, unfold
from dermseg.training.check import check_run
from dermseg.training.checkpoint import BEST, START
from dermseg.training.config import load_config
from dermseg.training.norms import recover_norms
from dermseg.training.resolve import resolve
from dermseg.training.start import RECIPE, Start, average_with, find_start, load_run

CONFIGS = Path(__file__).parents[2] / "configs"
ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"widths": (4, 8)}),
    ("attention_unet", {"widths": (4, 8)}),
]


def test_the_default_bundle_gives_its_own_probabilities_in_torch() -> None:
    model, config = load_model(threads=1), load_run(None)
    assert config.model.init_from == "default" and config.training.freeze_norm
    assert config.model.architecture == model.card.architecture
    assert config.training.image_size == model.card.preprocessing.height
    network = build_model(config.model.architecture, **config.model.options)
    find_start("default").load(network)
    x = model.prepare(synthesize(3, (192, 256))[0])[None]
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(x)).numpy()
    temperature = model.card.postprocessing.temperature
    mine = 1 / (1 + np.exp(-logits[:, 0] / temperature))
    assert np.abs(mine - model.infer(x)).max() < 1e-4


@pytest.mark.parametrize(("name", "options"), ARCHITECTURES, ids=[a[0] for a in ARCHITECTURES])
def test_what_the_exporter_folds_is_unfolded(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    trained = build_model(name, **options).train()
    with torch.no_grad():
        for _ in range(2):  # batch norms that are not the identity
            trained(torch.randn(4, 3, 64, 64) * 2 + 1)
    again = build_model(name, **options).eval()
    state = unfold(again, read_parameters(to_onnx(trained.eval(), 64)))
    again.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), trained(x), rtol=1e-4, atol=1e-4)


def _train(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["train", *words])
    return int(end.value.code or 0)


def test_a_bundle_is_fine_tuned_and_its_run_again(
    tiny_config: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DERMSEG_INDEX", tiny_config[1]["data"]["train"][0]["index"])
    monkeypatch.setenv("DERMSEG_CACHE", str(tmp_path / "cache"))
    quick = ["data.train.0.per_epoch=8", "data.cache_size=64", "training.image_size=64"]
    quick += ["training.epochs=1", "training.batch_size=4", "training.threads=1", "training.device=cpu"]
    words = [word for item in quick for word in ("--set", item)]
    run = tmp_path / "run"
    assert _train("--from", "default", "-o", str(run), "--json", *words) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 <= result["best_dice"] <= 1 and result["steps"] == 2
    card, config = load_bundle().card, load_config(run / "config.yaml")
    assert config.model.options == {**card.architecture_options, "pretrained": False}
    tuned = load_file(run / BEST)
    begun = find_start("default").state(build_model(config.model.architecture, **config.model.options))
    statistics = [k for k in begun if k.endswith(("running_mean", "running_var"))]
    assert statistics and all(torch.equal(tuned[k], begun[k]) for k in statistics)
    assert not torch.equal(tuned["head.weight"], begun["head.weight"])
    # a run, and its weights, are starts too
    for start in (run, run / BEST):
        again = load_run(None, str(start), ["training.image_size=64"])
        assert again.model.options == config.model.options
        network = build_model(again.model.architecture, **again.model.options)
        find_start(str(start)).load(network)
        assert torch.equal(network.state_dict()["head.weight"], tuned["head.weight"])


def test_norms_of_a_bundle_come_to_life_without_changing_what_it_computes() -> None:
    network = build_model("encoder_unet", dropout=0)
    find_start("default").load(network)
    rows = [synthesize(seed, (160, 160))[0] for seed in range(8)]
    model = load_model(threads=1)
    x = torch.from_numpy(np.stack([model.prepare(pixels) for pixels in rows]))
    with torch.no_grad():
        before = network.eval()(x)
        recover_norms(network, [x[:4], x[4:]])
        torch.testing.assert_close(network(x), before, rtol=1e-3, atol=1e-3)
        # statistics of the batch are now those that the norms hold: learning does not begin with a jump
        torch.testing.assert_close(network.train()(x), before, rtol=0.02, atol=0.1)


def test_a_run_from_a_bundle_keeps_what_it_began_with(
    tiny_config: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["--from", "default", "--set", "training.freeze_norm=false", "--set", "training.phases=[]"]
    words += [
        "--set",
        "model.average_with_start=0.5",
        "--set",
        "training.epochs=1",
        "--set",
        "training.lr=0.01",
    ]
    assert _train(str(tiny_config[0]), *words, "-o", str(run)) == 0, capsys.readouterr().err
    began, best = load_file(run / START), load_file(run / BEST)
    assert began.keys() == best.keys()
    network = build_model("encoder_unet")
    network.load_state_dict(best)
    average_with(Start(weights=run / START), network, 0.5)
    middle = network.state_dict()["head.weight"]
    torch.testing.assert_close(middle, (began["head.weight"] + best["head.weight"]) / 2)


def test_only_the_network_is_taken_from_the_start(
    tiny_config: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file, settings = tiny_config
    bare = {key: value for key, value in settings.items() if key != "model"}
    file.write_text(yaml.safe_dump(bare | {"model": {"init_from": "default", "average_with_start": 0.5}}))
    assert load_run(file).model.average_with_start == 0.5
    assert load_run(file).training.image_size == settings["training"]["image_size"], "said beside init_from"
    run = tmp_path / "run"
    run.mkdir()
    (run / BEST).touch()
    (run / "config.yaml").write_text(yaml.safe_dump(load_run(file).model_dump(mode="json")))
    file.write_text(yaml.safe_dump(bare))
    again = load_run(file, str(run)).model
    assert again.average_with_start == 0 and again.architecture == "encoder_unet"
    # norms of a bundle are frozen, but where the file says something else
    assert load_run(file, "default").training.freeze_norm
    assert load_run(file, "default").training.image_size == load_bundle().card.preprocessing.height
    file.write_text(yaml.safe_dump(bare | {"training": settings["training"] | {"freeze_norm": False}}))
    assert not load_run(file, "default").training.freeze_norm
    assert load_run(file, "default", ["training.freeze_norm=true"]).training.freeze_norm


def test_a_start_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_run(None, "nothing")
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    config = load_run(None, str(tmp_path / "weights.safetensors"))
    with pytest.raises(ModelError, match="no safetensors file"):
        find_start(config.model.init_from or "").load(nn.Identity())


def test_a_run_that_was_never_validated_is_no_start(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: run\n")
    with pytest.raises(ModelError, match=rf"has no {BEST} .*--resume {tmp_path / 'run'} goes on"):
        find_start(str(tmp_path / "run"))


def test_a_folder_called_default_is_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    config = load_run(None)
    assert resolve(config).model.init_from == config.model.init_from == "default"
    assert find_start("default").bundle is not None
    (tmp_path / "default" / BEST).touch()
    with pytest.raises(ModelError, match="a training run"):
        find_start("default")
    assert find_start("./default").weights == Path("default") / BEST


def test_the_recipe_is_the_shipped_configuration() -> None:
    assert RECIPE.read_text() == (CONFIGS / "finetune.yaml").read_text()


def test_a_configuration_that_names_a_network_keeps_it(tiny_config: tuple[Path, Any]) -> None:
    config = load_run(tiny_config[0], None, ["model.init_from=default"])
    assert config.model.architecture == "unet"
    with pytest.raises(ConfigError, match="of another network"):
        check_run(config)
