"""Wrong settings end before any work starts, with one line that says what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dermseg.errors import ConfigError
from dermseg.experiments.suite import Cell, SuiteConfig, load_suite, run_config
from dermseg.training.config import TrainingConfig, expand, load_config

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert load_config(path).data.train


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", "did you mean 'epochs'"),
        ("training.lr=-1", "greater than 0"),
        ("data.train.0.indx=a", "did you mean 'index'"),
        ("training.phases=[{epochs: 9, image_size: 64}]", "none is left"),
        ("training.loss={bce: 0, dice: 0}", "at least one loss"),
        ("training.schedule=linear", "one_cycle"),
        ("training", "key=value"),
    ],
)
def test_wrong_settings_are_named(tiny_config: tuple[Path, Any], override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(tiny_config[0], [override])


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes("seed: 1  # Größe".encode("latin-1"))
    for read in (load_config, load_suite):
        with pytest.raises(ConfigError, match="is not YAML"):
            read(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 30)),
            "more than 100000",
        ),
        ("k1: &k1 [*k1]", "nested too deeply"),
        (f"k: {'[' * 3000}{']' * 3000}", "nested too deeply"),
    ],
    ids=["bomb", "circle", "depth"],
)
def test_a_file_that_never_ends_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(f"k0: &k0 [x]\n{text}\nmodel: *k1\n" if "k1:" in text else text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_long_wrong_value_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(f"model: {'x' * 100_000}")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert len(str(error.value)) < 1000


def test_overrides_are_yaml(tiny_config: tuple[Path, Any]) -> None:
    config = load_config(tiny_config[0], ["training.lr=5e-4", "augmentation.scale=[0.5, 2]", "seed=3"])
    assert (config.training.lr, config.augmentation.scale, config.seed) == (5e-4, (0.5, 2.0), 3)
    off = load_config(tiny_config[0], ["training.autocast=off"])  # a boolean to YAML
    assert off.training.autocast == "off"


def test_a_section_without_a_line_takes_settings(tiny_config: tuple[Path, Any]) -> None:
    path, _ = tiny_config
    path.write_text(path.read_text() + "augmentation:\n  # flip: false\n")
    assert load_config(path, ["augmentation.blur=0.5"]).augmentation.blur == 0.5
    with pytest.raises(ConfigError, match="'name' is a value, not a section"):
        load_config(path, ["name.first=x"])


@pytest.mark.parametrize("text", ["1e-5", "1.0e-05", "+1E-5", ".1e-4", "1.e-5"])
def test_small_numbers_reach_somebody_elses_part_as_numbers(tiny_config: tuple[Path, Any], text: str) -> None:
    given = f"training.loss={{name: mine.loss, options: {{eps: {text}}}}}"
    assert load_config(tiny_config[0], [given]).training.loss.options == {"eps": pytest.approx(1e-5)}
    assert load_config(tiny_config[0], ["name=1e-5a"]).name == "1e-5a"
    # a suite hands its values on as JSON, which writes 1e-05
    cell = Cell((), 0, {"model.options.slope": float(text)}, None, None)
    suite = SuiteConfig.model_construct(base=tiny_config[0].name)
    options = run_config(suite, tiny_config[0], cell).model.options
    assert options["slope"] == pytest.approx(1e-5)


def test_paths_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert expand("${SOMEWHERE}/a.csv") == Path("/data/a.csv")
    assert expand("${NOWHERE:-/fallback}/a") == Path("/fallback/a")
    with pytest.raises(ConfigError, match="NOWHERE"):
        expand("${NOWHERE}/a")


def test_phases_decide_the_image_size() -> None:
    t = TrainingConfig(
        epochs=4, image_size=64, batch_size=8, phases=[{"epochs": 2, "image_size": 32, "batch_size": 16}]
    )
    assert [t.at_epoch(e) for e in range(4)] == [(32, 16), (32, 16), (64, 8), (64, 8)]
