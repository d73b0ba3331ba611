"""What a suite is: a base configuration, axes of variations, seeds, and what is evaluated.

The cells of a suite are the product of its axes. A variation is a set of overrides of the base configuration,
spelt as for ``dermseg train --set``; ``fraction`` and ``fold`` in it choose among the training data.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from dermseg.errors import ConfigError
from dermseg.schema import Strict, check, read_yaml
from dermseg.training.config import RunConfig, SourceConfig, expand, load_config
from dermseg.training.start import load_run

FRACTION, FOLD = "fraction", "fold"


class TestConfig(Strict):
    """A data set that every run is evaluated on. Without an index it is the run's own, for folds."""

    __test__ = False  # not a test, whatever pytest thinks of its name

    name: str
    index: str | None = None
    split: str = "test"


def folder_name(test: TestConfig) -> str:
    """Name of the folder that the evaluation on a data set lies in."""
    return test.name.replace("/", "-")


class SuiteConfig(Strict):
    """A suite as its YAML file says it."""

    name: str
    base: str = Field(description="configuration of a run, relative to the suite's file")
    set: dict[str, Any] = Field(default_factory=dict, description="overrides for every run")
    axes: dict[str, dict[str, dict[str, Any]]] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    folds: int | None = Field(
        default=None, ge=3, description="of cross-validation; all of them, unless variations say which"
    )
    evaluate: tuple[TestConfig, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _every_fold(cls, raw: Any) -> Any:
        """``folds: 5`` alone is cross-validation: an axis ``fold`` is added behind those that are there."""
        if not isinstance(raw, dict) or not isinstance(axes := raw.get("axes", {}), dict):
            return raw
        folds = raw.get("folds")
        variations = [v for axis in axes.values() if isinstance(axis, dict) for v in axis.values()]
        chosen = FOLD in axes or any(isinstance(v, dict) and FOLD in v for v in variations)
        if chosen or not isinstance(folds, int) or folds < 3:
            return raw
        return {**raw, "axes": {**axes, FOLD: {str(i + 1): {FOLD: i} for i in range(folds)}}}

    @model_validator(mode="after")
    def _variations_fit(self) -> SuiteConfig:
        _check_parts("set", self.set, self.folds)
        for axis, variations in self.axes.items():
            if not variations:
                raise ValueError(f"axes.{axis}: no variation, so there would be no run")
            for name, overrides in variations.items():
                _check_parts(f"axes.{axis}.{name}", overrides, self.folds)
        return self

    @model_validator(mode="after")
    def _none_is_lost(self) -> SuiteConfig:
        """A setting inside of what a later part sets as a whole would be gone, and no name would say so."""
        before = [("set", self.set)]
        for axis, variations in self.axes.items():
            parts = [(f"axes.{axis}.{name}", overrides) for name, overrides in variations.items()]
            for (where, inner), (whole, outer) in itertools.product(before, parts):
                for key, section in itertools.product(inner, outer):
                    if key.startswith(f"{section}."):
                        raise ValueError(
                            f"{where}: {key} would be lost, as {whole} sets all of {section} after it; "
                            "say it there too, or let its axis come last"
                        )
            before += parts
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> SuiteConfig:
        """Runs and evaluations lie in folders that are called after them; some systems know no case."""
        folders = {
            "runs": [cell.name for cell in cells(self)],
            "evaluations": [folder_name(test) for test in self.evaluate],
        }
        for what, names in folders.items():
            times = Counter(name.casefold() for name in names)
            if twice := [name for name in names if times[name.casefold()] > 1]:
                raise ValueError(f"{times[twice[0].casefold()]} {what} would be called '{twice[0]}'")
        return self


def _check_parts(where: str, overrides: Mapping[str, Any], folds: int | None) -> None:
    """Fraction and fold are taken out of the overrides, so the configuration of a run does not check them."""
    fraction, fold = overrides.get(FRACTION), overrides.get(FOLD)
    if fraction is not None:
        if isinstance(fraction, bool) or not isinstance(fraction, int | float):
            raise ValueError(f"{where}: fraction {fraction!r} is not a number, such as 0.1 for 10 %")
        if not 0 < fraction <= 1:
            raise ValueError(f"{where}: fraction {fraction} is not in (0, 1]")
    if fold is not None:
        if isinstance(fold, bool) or not isinstance(fold, int):
            raise ValueError(f"{where}: fold {fold!r} is not a whole number; the first one is 0")
        if folds is None or not 0 <= fold < folds:
            raise ValueError(f"{where}: fold {fold} needs 'folds' above it, which is {folds}")


@dataclass(frozen=True)
class Cell:
    """One run of a suite."""

    variations: tuple[tuple[str, str], ...]  # (axis, variation), in the order of the axes
    seed: int
    overrides: Mapping[str, Any]
    fraction: float | None
    fold: int | None

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        words = [*(variation for _, variation in self.variations), f"seed{self.seed}"]
        return "--".join(
            re.sub(r"[^A-Za-z0-9.]+", "-", word.replace("%", "pct")).strip("-") for word in words
        )


def load_suite(path: Path) -> SuiteConfig:
    """Read a suite's YAML file.

    Raises
    ------
    ConfigError
        The file is missing or not YAML, or a key or value is wrong.
    """
    return check(SuiteConfig, read_yaml(path), path)


def indexes(suite: SuiteConfig) -> list[Path]:
    """The indexes that the suite names to evaluate on."""
    return [expand(test.index) for test in suite.evaluate if test.index]


def tested_indexes(config: RunConfig, test: TestConfig) -> list[Path]:
    """The index that a run is evaluated on; all that it trains on, each once, where the test names none."""
    if test.index:
        return [expand(test.index).absolute()]
    return indexes_of(config.data.train)


def indexes_of(sources: Iterable[SourceConfig]) -> list[Path]:
    """Where the indexes of sources are, each once."""
    return list(dict.fromkeys(expand(source.index).absolute() for source in sources))


def cells(suite: SuiteConfig) -> Iterator[Cell]:
    """Every run of the suite, seeds innermost."""
    names = list(suite.axes)
    for chosen in itertools.product(*suite.axes.values()):
        overrides = dict(suite.set)
        for axis, variation in zip(names, chosen, strict=True):
            overrides |= suite.axes[axis][variation]
        fraction, fold = overrides.pop(FRACTION, None), overrides.pop(FOLD, None)
        for seed in suite.seeds:
            yield Cell(tuple(zip(names, chosen, strict=True)), seed, overrides, fraction, fold)


def run_config(suite: SuiteConfig, path: Path, cell: Cell) -> RunConfig:
    """The configuration of one run, before its training data are cut down.

    Raises
    ------
    ConfigError
        An override does not fit, or the base does not; the file is named that is to be corrected.
    ModelError
        What it starts from is not there.
    """
    values = {**cell.overrides, "seed": cell.seed, "name": cell.name}
    words = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    base = path.parent / suite.base
    try:
        return load_run(base, overrides=words)  # as 'dermseg train' reads it, which may begin with a model
    except ConfigError as error:
        try:
            load_config(base)
        except ConfigError:
            raise error from None
        raise ConfigError(f"{cell.name}: {error.message}", file=path, hint=error.hint) from None
