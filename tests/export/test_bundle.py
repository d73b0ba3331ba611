"""From a finished run to a bundle that the everyday install can use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import yaml
from safetensors.torch import load_file as load_weights_file
from safetensors.torch import save_file

from dermseg.apps.cli.main import main
from dermseg.errors import ConfigError, ModelError, TrainingError, UsageError
from dermseg.experiments.predict import RunModel
from dermseg.experiments.run import evaluate_run
from dermseg.experiments.suite import TestConfig
from dermseg.export.bundle import Named, export_run
from dermseg.export.provenance import initialisation_of, licence_of
from dermseg.export.rebuild import rebuild
from dermseg.export.two_classes import as_one_channel
from dermseg.export.write import check_output, write_bundle
from dermseg.inference.bundle import load_bundle
from dermseg.inference.card import read_card
from dermseg.inference.predictor import load_model
from dermseg.inference.runtimes_openvino import openvino_installed
from dermseg.models import build_model, count_parameters
from dermseg.training.check import check_run
from dermseg.training.checkpoint import BEST, LAST
from dermseg.training.config import ModelConfig, load_config
from dermseg.training.log import epochs_trained
from dermseg.training.run import train
from dermseg.training.start import load_run

HAS_OPENVINO = openvino_installed()


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def write_discs(folder: Path, n: int = 8, size: int = 64) -> Path:
    """Dark discs on light skin with an index: 4 train, 4 val."""
    folder.mkdir()
    lines = ["image_id,image,masks,dataset,subject,lesion,group,split,width,height,licence,sha256"]
    for i in range(n):
        rng = np.random.default_rng(i)
        image = np.full((size, size, 3), (150, 180, 215), np.uint8)
        mask = np.zeros((size, size), np.uint8)
        cv2.circle(mask, tuple(int(v) for v in rng.integers(22, 42, 2)), int(rng.integers(10, 18)), 255, -1)
        image[mask > 0] = (40, 60, 100)
        cv2.imwrite(str(folder / f"{i}.png"), image)
        cv2.imwrite(str(folder / f"{i}_mask.png"), mask)
        split = "train" if i < 4 else "val"
        lines.append(f"{i},{i}.png,{i}_mask.png,discs,,,{i},{split},{size},{size},CC0-1.0,{i:064x}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder / "index.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    index = str(write_discs(folder / "discs"))
    config = {
        "data": {
            "train": [{"index": index}],
            "val": [{"index": index, "split": "val"}],
            "cache_dir": str(folder / "cache"),
            "cache_size": 64,
        },
        "model": {"architecture": "unet", "options": {"widths": [8, 16, 32]}},
        "training": {
            "epochs": 25, "image_size": 64, "batch_size": 2, "lr": 0.01, "device": "cpu", "ema_decay": 0.8,
            "phases": [{"epochs": 1, "image_size": 32}],
        },
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    train(load_config(folder / "config.yaml"), folder / "run", quiet=True)
    return folder / "run"


def test_a_run_becomes_a_bundle_that_finds_what_it_was_taught(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(run), "-o", str(tmp_path / "discs"), "--note", "only discs", "--json"]
    command += ["--variants", "fp16,fp32,int8" + ",openvino" * HAS_OPENVINO, "--end-to-end", "--opset", "13"]
    command += ["--force"]  # the network is so small that which variant is slower is chance
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert not ended.value.code
    card = read_card(capsys.readouterr().out)
    bundle = load_bundle(tmp_path / "discs")
    names = ["fp16", "fp32", "int8", *["openvino"] * HAS_OPENVINO, "end-to-end"]
    assert bundle.verify() == dict.fromkeys(names, "ok")
    assert bundle.card == card
    assert list(card.variants) == names
    assert card.default_variant == "fp16"
    assert card.preprocessing.height == 64
    assert card.parameters == count_parameters(build_model("unet", widths=(8, 16, 32)))
    assert card.limitations[-1] == "only discs"
    assert card.training["data"][0]["licences"] == {"CC0-1.0": 4}
    for name, variant in card.variants.items():
        parity = variant.parity
        assert parity is not None
        assert parity["images"] == 4
        assert parity["flipped_pixels"] < 0.02
        assert abs(parity["dice"] - parity["dice_reference"]) < 0.05
        assert variant.opset == (None if name == "openvino" else 13)
        if name != "end-to-end":
            assert parity["mean_difference"] <= parity["max_difference"] < 0.5
            assert {(row.batch, row.threads) for row in variant.latency} >= {(1, 1), (4, 1)}
            assert variant.speedup
    graph = onnx.load_from_string(bundle.read_model("fp32")).graph
    used = {name for node in graph.node for name in node.input}
    assert used.issuperset(tensor.name for tensor in graph.initializer)  # runtimes complain otherwise
    sizes = {name: sum(f.bytes for f in variant.files) for name, variant in card.variants.items()}
    assert sizes["int8"] < sizes["fp16"] < sizes["fp32"]

    image = np.ascontiguousarray(cv2.imread(str(run.parent / "discs/5.png"))[..., ::-1])
    reference = cv2.imread(str(run.parent / "discs/5_mask.png"), cv2.IMREAD_GRAYSCALE) > 0
    for name in names[:-1]:
        assert dice(load_model(tmp_path / "discs", variant=name).segment(image).mask, reference) > 0.8
    session = ort.InferenceSession(tmp_path / "discs" / "model-end-to-end.onnx")
    large = cv2.resize(image, (150, 117), interpolation=cv2.INTER_LINEAR)
    expected = load_model(tmp_path / "discs").segment(large).mask
    (masks,) = session.run(["mask"], {"pixels": np.stack([large, large[:, ::-1]])})
    assert masks.dtype == np.uint8 and set(np.unique(masks)) == {0, 255}
    assert masks.shape == (2, 117, 150)
    assert dice(masks[0] > 0, expected) > 0.99

    with pytest.raises(SystemExit) as ended:
        main(["models", "info", str(tmp_path / "discs")])
    shown = capsys.readouterr().out
    assert not ended.value.code
    assert all(
        word in shown for word in (*names, "parity", "flip", "opset 13", "batch 4", "largest component")
    )


def test_a_partner_is_asked_too_and_the_threshold_is_that_of_both(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = export_run(run, tmp_path / "alone", Named("alone", "1"))
    both = export_run(run, tmp_path / "both", Named("both", "1"), partner="fast")
    fast = load_bundle("fast").card
    partner = both.variant().partner
    assert partner is not None and partner.bundle == "fast" and partner.sha256 == fast.variant().sha256
    assert both.variant().model_copy(update={"partner": None}).sha256 == alone.variant().sha256
    assert both.training["postprocessing_trials"] != alone.training["postprocessing_trials"]
    model = load_model(tmp_path / "both")
    image = np.ascontiguousarray(cv2.imread(str(run.parent / "discs/5.png"))[..., ::-1])
    seen = model.prepare(image)[None]
    assert np.abs(model.session(seen) - load_model(tmp_path / "alone").session(seen)).max() > 0.1
    with pytest.raises(SystemExit) as ended:
        main(["models", "info", str(tmp_path / "both")])
    assert not ended.value.code and "partner     fast, fp16" in capsys.readouterr().out
    with pytest.raises(UsageError, match="takes a bundle inside the package, not"):
        export_run(run, tmp_path / "other", Named("other", "1"), partner=str(tmp_path / "alone"))
    with pytest.raises(UsageError, match="end-to-end cannot have a partner"):
        export_run(run, tmp_path / "ends", Named("ends", "1"), partner="fast", end_to_end=True)
    assert not (tmp_path / "ends").exists(), "refused before anything is written"


def test_two_softmax_channels_become_the_lesion_and_more_are_refused(run: Path, tmp_path: Path) -> None:
    """A network of two classes that says in both channels what the run's says in one."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    single = build_model("unet", **config["model"]["options"])
    single.load_state_dict(load_weights_file(run / BEST))
    for classes in (2, 3):
        other = tmp_path / f"{classes}"
        shutil.copytree(run, other)
        config["model"] |= {"outputs": "softmax"}
        config["model"]["options"] |= {"classes": classes}
        config["training"]["loss"] = {"name": "ce_dice"}
        (other / "config.yaml").write_text(yaml.safe_dump(config))
        state = single.state_dict()
        for name, tensor in build_model("unet", **config["model"]["options"]).state_dict().items():
            if tensor.shape != state[name].shape:
                state[name] = torch.cat([-state[name] / 2, *[state[name] / 2] * (classes - 1)])
        save_file(state, other / BEST)
    with pytest.raises(ModelError, match="tells 3 classes apart"):
        export_run(tmp_path / "3", tmp_path / "no", Named("discs", "1", "CC0-1.0"))
    export_run(tmp_path / "2", tmp_path / "two", Named("discs", "1", "CC0-1.0"), force=True)
    export_run(run, tmp_path / "one", Named("discs", "1", "CC0-1.0"), force=True)
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    one, two = (load_model(tmp_path / name).infer(x) for name in ("one", "two"))
    assert np.abs(one - two).max() < 1e-3
    image = np.ascontiguousarray(cv2.imread(str(run.parent / "discs/5.png"))[..., ::-1])
    np.testing.assert_allclose(
        RunModel(tmp_path / "2", "cpu").probability(image), RunModel(run, "cpu").probability(image), atol=1e-4
    )


def test_a_bundle_of_several_attributes_says_which_it_outlines(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["options"] |= {"classes": 2}
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    save_file(build_model("unet", **config["model"]["options"]).state_dict(), other / BEST)
    card = export_run(other, tmp_path / "two", Named("discs", "1", "CC0-1.0"), force=True)
    assert any("2 maps; outlines and figures are those of the first" in text for text in card.limitations)
    index = config["data"]["val"][0]["index"]
    folder = evaluate_run(other, TestConfig(name="discs", index=index, split="val"))
    said = json.loads((folder / "metrics.json").read_text())["protocol"]["text"]
    assert "the first of 2 attributes" in said


def test_two_softmax_channels_in_a_network_that_is_two_wide_inside() -> None:
    options = {"widths": [4, 8], "classes": 2, "dropout": 0.0}  # its attention gate has two channels
    two = build_model("attention_unet", **options).eval()
    config = ModelConfig(architecture="attention_unet", options=options, outputs="softmax")
    one, _ = as_one_channel(two, config)
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(one(x)[:, 0].sigmoid(), two(x).softmax(1)[:, 1], atol=1e-5)


def test_weights_can_be_averaged_with_those_of_the_start(run: Path, tmp_path: Path) -> None:
    start = load_weights_file(run / BEST)
    (bias,) = [name for name, value in start.items() if name.endswith("bias") and value.shape == (1,)]
    save_file({**start, bias: start[bias] + 8}, tmp_path / "start.safetensors")
    shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] |= {"init_from": str(tmp_path / "start.safetensors"), "average_with_start": 0.25}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    logits = []
    for name in (run, tmp_path / "run"):
        card = export_run(
            name, tmp_path / "bundle", Named("discs", "1", "CC0-1.0"), variants=["fp32"], overwrite=True
        )
        model = load_model(tmp_path / "bundle")
        logits.append(model.session(np.zeros((1, 3, 64, 64), np.float32)))
    assert np.abs(logits[1] - logits[0] - 2).max() < 1e-4
    assert card.training["weights"] == "75 % as trained, 25 % of start.safetensors"


@pytest.mark.parametrize(
    ("size", "post", "resize"),
    [
        ((331, 290), {}, "area"),
        ((40, 50), {"keep_largest": False, "min_area_fraction": 0.05}, "area"),
        ((500, 30), {"smooth_radius": 0.05}, "area"),
        ((200, 300), {"fill_holes": False, "threshold": 0.3, "temperature": 2.0}, "bilinear"),
    ],
)
def test_the_docs_tell_how_to_use_a_bundle_without_dermseg(
    run: Path, tmp_path: Path, size: tuple[int, int], post: dict[str, Any], resize: str
) -> None:
    export_run(run, tmp_path / "discs", Named("discs", "1", "CC0-1.0"), variants=["fp32"])
    card = json.loads((tmp_path / "discs" / "card.json").read_text(encoding="utf-8"))
    card["postprocessing"] |= {"keep_largest": True, "fill_holes": True} | post
    card["preprocessing"]["resize"] = resize
    (tmp_path / "discs" / "card.json").write_text(json.dumps(card), encoding="utf-8")
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = page.partition("<!-- without dermseg -->\n```python\n")[2].partition("```")[0]
    photo = np.full((64, 64, 3), (150, 180, 215), np.uint8)
    for centre, radius, colour in (
        ((40, 30), 18, (40, 60, 100)),
        ((42, 32), 9, (150, 180, 215)),
        ((8, 52), 5, (40, 60, 100)),
    ):
        cv2.circle(photo, centre, radius, colour, -1)
    photo = cv2.resize(photo, size)
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    code = code.replace('"my-bundle', f'"{tmp_path}/discs').replace('"photo.jpg"', f'"{tmp_path}/photo.png"')
    names: dict[str, Any] = {}
    exec(code, names)
    expected = load_model(tmp_path / "discs").segment(np.ascontiguousarray(photo[..., ::-1]))
    assert np.mean(names["mask"] != expected.mask) < 1e-4
    assert 0.05 < expected.area_fraction < 0.5


def test_a_folder_that_is_no_bundle_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a bundle"):
        export_run(run, tmp_path / "letters", Named("x", "1", "CC0-1.0"))
    assert (tmp_path / "letters" / "a.txt").read_text() == "mine"


def test_a_bundle_does_not_take_the_place_of_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    for place in (".", "..", str(tmp_path)):
        with pytest.raises(UsageError, match="the folder that you are in"):
            check_output(Path(place))
    check_output(Path("new"))


def test_a_run_without_its_checkpoint_is_exported_where_its_size_is_known(run: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    shutil.copytree(run, lost)
    (lost / LAST).unlink()
    with pytest.raises(TrainingError, match=r"training\.inference_size in config\.yaml, one of 32, 64"):
        RunModel(lost)
    settings = yaml.safe_load((lost / "config.yaml").read_text())
    (lost / "config.yaml").write_text(
        yaml.safe_dump(settings | {"training": settings["training"] | {"phases": []}})
    )
    assert RunModel(lost).preprocessing.height == 64
    (lost / BEST).unlink()
    with pytest.raises(ModelError, match=f"dermseg train --resume {lost}"):
        RunModel(lost)


def test_a_threshold_that_is_chosen_on_other_images_is_said(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run.parent, tmp_path / "other") / "run"
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace(str(run.parent), str(other.parent)))
    index = other.parent / "discs" / "index.csv"
    for split_anew in (False, True):
        if split_anew:
            lines = index.read_text().splitlines()
            lines[1] = lines[1].replace(",train,", ",val,")  # it was trained on
            index.write_text("\n".join([*lines[:-1], lines[-1].replace(",val,", ",train,")]) + "\n")
        said: list[str] = []
        made = export_run(other, tmp_path / f"bundle-{split_anew}", Named("x", "1"), report=said.append)
        assert any("may have been trained on" in text for text in made.limitations) is split_anew
        assert any(line.startswith("warning: The validation images") for line in said) is split_anew


def test_a_bundle_is_replaced_only_on_request(run: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, there)
    before = (there / "card.json").read_bytes()
    with pytest.raises(UsageError, match=r"a bundle already.*another -o, or --overwrite"):
        export_run(run, there, Named("x", "1", "CC0-1.0"))
    assert (there / "card.json").read_bytes() == before
    (there / "notes.md").write_text("mine")
    with pytest.raises(UsageError, match=r"no part of the bundle: notes\.md"):
        export_run(run, there, Named("x", "1", "CC0-1.0"), overwrite=True)
    assert (there / "notes.md").read_text() == "mine" and (there / "card.json").read_bytes() == before
    (there / "notes.md").unlink()
    check_output(there, overwrite=True)


def test_a_bundle_is_replaced_whole(tiny_bundle: Path, tmp_path: Path) -> None:
    card = load_bundle(tiny_bundle).card
    data = (tiny_bundle / "model.onnx").read_bytes()
    for version in ("1", "2"):
        write_bundle(tmp_path / "b", card.model_copy(update={"version": version}), {"model.onnx": data})
    assert json.loads((tmp_path / "b" / "card.json").read_text())["version"] == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_is_there_is_filled(tiny_bundle: Path, tmp_path: Path) -> None:
    """A volume of a container, say: nothing can be moved into its place, and nothing written beside it."""
    out = tmp_path / "volume"
    out.mkdir()
    before = out.stat().st_ino
    check_output(out)
    data = (tiny_bundle / "model.onnx").read_bytes()
    write_bundle(out, load_bundle(tiny_bundle).card, {"model.onnx": data})
    assert out.stat().st_ino == before
    assert load_bundle(out).verify() == {"fp32": "ok"}
    assert sorted(p.name for p in out.iterdir()) == ["card.json", "model.onnx"]
    assert [p.name for p in tmp_path.iterdir()] == ["volume"]


def test_where_nothing_can_be_written_is_said_before_the_work(
    run: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        check_output(tmp_path / "file" / "bundle")
    shutil.copytree(tiny_bundle, tmp_path / "volume")
    with monkeypatch.context() as patch:
        patch.setattr("os.path.ismount", lambda path: Path(path) == tmp_path / "volume")
        with pytest.raises(UsageError, match="where a disk or volume is mounted"):
            check_output(tmp_path / "volume", overwrite=True)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    check_output(tmp_path / "empty")
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        export_run(run, tmp_path / "bundle", Named("x", "1", "CC0-1.0"))


def test_weights_that_began_with_a_bundle_keep_its_licence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuned from the bundled model, a network stays under its conditions, also two runs later."""
    assert licence_of(load_config(run / "config.yaml")) == "unspecified"
    ours = load_bundle("default").card.licence
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "default")  # is not what 'default' means
    start = "default"
    for name, weights in (("first", "best.safetensors"), ("second", "")):
        config = load_config(run / "config.yaml", [f"model.init_from={start}"])
        assert licence_of(config) == f"that of default: {ours}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        start = str(tmp_path / name / weights)
    assert (
        licence_of(load_config(run / "config.yaml", [f"model.init_from={tmp_path / 'gone'}"]))
        == "unspecified"
    )


def test_the_card_counts_the_epochs_that_were_trained(run: Path, tmp_path: Path) -> None:
    # stopped early, and gone on from
    shutil.copytree(run, tmp_path / "early")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    sixth = next(i for i, line in enumerate(lines) if '"val"' in line and '"epoch": 5' in line)
    (tmp_path / "early" / "metrics.jsonl").write_text("".join(lines[: sixth + 1]))
    made = export_run(tmp_path / "early", tmp_path / "bundle", Named("x", "1"), variants=("fp32",))
    assert made.training["epochs"] == 6
    later = load_config(run / "config.yaml", [f"model.init_from={tmp_path / 'early'}"])
    assert initialisation_of(later) == "early, 6 epochs from random"
    assert epochs_trained(tmp_path) is None


def test_filters_and_end_to_end_are_refused_before_any_work(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["filters"] = ["shades_of_grey"]
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    said: list[str] = []
    with pytest.raises(UsageError, match="cannot hold the filters shades_of_grey"):
        export_run(other, tmp_path / "no", Named("x", "1"), end_to_end=True, report=said.append)
    assert not said


def test_a_pruned_unetpp_is_the_head_of_the_whole(run: Path, tmp_path: Path) -> None:
    config = load_config(run / "config.yaml")
    options = {"widths": [4, 6, 8]}
    model = config.model.model_copy(update={"architecture": "unetpp", "options": options})
    short = config.training.model_copy(update={"epochs": 1, "phases": ()})
    train(config.model_copy(update={"model": model, "training": short}), tmp_path / "run", quiet=True)
    card = export_run(tmp_path / "run", tmp_path / "small", Named("small", "1", "CC0-1.0"), prune=1)
    assert card.architecture_options["widths"] == [4, 6]
    whole = RunModel(tmp_path / "run").network
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        head = whole.decode_all(whole.encode(x))[1]
    session = ort.InferenceSession(load_bundle(tmp_path / "small").read_model())
    (logits,) = session.run(["logits"], {"image": x.numpy()})
    np.testing.assert_allclose(logits, head, atol=0.01)
    export_run(tmp_path / "run", tmp_path / "whole", Named("whole", "1", "CC0-1.0"), force=True)
    for name, expected in (("small", head), ("whole", whole(x).detach())):  # of several heads there is one
        with torch.no_grad():
            again = rebuild(load_bundle(tmp_path / name))(x)
        np.testing.assert_allclose(again, expected, atol=0.01)
        start = load_run(run / "config.yaml", str(tmp_path / name))
        check_run(start)
    with pytest.raises(ConfigError, match="cannot be pruned to depth 3"):
        export_run(tmp_path / "run", tmp_path / "none", Named("x", "1", "CC0-1.0"), prune=3)
    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "-o", str(tmp_path / "none"), "--prune", "1"])
    assert ended.value.code == 2
    assert not (tmp_path / "none").exists()
