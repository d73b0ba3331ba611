"""The loop of labelling and training, played on images whose labels are known but hidden.

For each seed a first few images are drawn and a network is trained on them. Then each strategy ranks the rest
by that network, as ``dermseg label rank`` does, takes the next images, and a new network is trained, from the
same start and for as many steps; and so on. What counts is the Dice on test images after each training.

Decisions
- The same trainer as ``dermseg train``: a cell is a run with one validation, at its end, on the test images;
  so nothing is chosen by them.
- All images are first written once as small PNG files; every cell reads those.
- A finished cell is a JSON file. A simulation that was stopped goes on with the cells that are missing.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dermseg.data.index import IndexRow, open_image, read_index, write_index
from dermseg.errors import UsageError
from dermseg.evaluation.evaluate import select_split
from dermseg.experiments.copies import INDEX, draw, write_copies
from dermseg.experiments.predict import RunModel
from dermseg.files import atomic_write
from dermseg.images.load import load_image
from dermseg.inference.card import Postprocessing
from dermseg.inference.postprocess import boundary_confidence, clean
from dermseg.inference.preprocess import to_input
from dermseg.inference.tta import stack_views
from dermseg.labeling.rank import SPREADING, Look, Strategy, make_look, rank
from dermseg.models.network import SegmentationNetwork
from dermseg.training.config import RunConfig
from dermseg.training.run import train

RECIPE = Path(__file__).with_name("simulate.yaml")
START = "start"
_POOL, _TEST = "pool", "test"


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes
    ----------
    sizes
        Labelled images at the start and after each round, rising.
    strategies
        Of ``labeling.rank``.
    seeds
        How often all of it is repeated, with other first images and other networks.
    pool, test
        Images that may be labelled and images to score on, drawn once; None takes all.
    """

    sizes: tuple[int, ...]
    strategies: tuple[Strategy, ...]
    seeds: int = 3
    pool: int | None = None
    test: int | None = None

    def check(self, pool: int) -> None:
        """Whether it can be played with so many images.

        Raises
        ------
        UsageError
            It cannot.
        """
        if len(self.sizes) < 2 or sorted(set(self.sizes)) != list(self.sizes) or self.sizes[0] < 1:
            raise UsageError(f"sizes {list(self.sizes)} do not rise", hint="--sizes 10,20,40,80")
        if self.sizes[-1] > pool:
            raise UsageError(f"{self.sizes[-1]} images cannot be labelled of {pool}", hint="smaller --sizes")


@dataclass(frozen=True)
class Cell:
    """One training: what it was trained on, how it did, and what each strategy would label next."""

    seed: int
    strategy: str
    images: list[str]
    dice: float
    seconds: float
    next: dict[str, list[str]]

    @property
    def labelled(self) -> int:
        """How many images it was trained on."""
        return len(self.images)


def simulate(
    index: Path,
    splits: tuple[str, str],
    plan: Plan,
    config: RunConfig,
    output: Path,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> list[Cell]:
    """Play the loop; what is done already is not done again.

    Parameters
    ----------
    index
        Labelled images.
    splits
        Of the images that may be labelled, and of those to score on.
    config
        Of every training; its data are replaced.
    output
        Keeps the small images and the cells.

    Raises
    ------
    UsageError
        The folder holds a simulation with other settings, an image is in both splits, or there are too few
        images.
    """
    rows = read_index(index)
    whole = [select_split(rows, split)[0] for split in splits]
    if {id(row) for row in whole[0]} & {id(row) for row in whole[1]}:  # 'all' holds the others
        raise UsageError(
            f"images of split '{splits[1]}' are in split '{splits[0]}', and cannot be both labelled and "
            "scored on",
            hint="other names for --split and --test-split",
        )
    parts = [
        draw(part, limit, number)
        for number, (part, limit) in enumerate(zip(whole, (plan.pool, plan.test), strict=True))
    ]
    plan.check(len(parts[0]))
    _claim(output, plan, config, parts)
    side = config.training.image_size
    for name, split, part in zip((_POOL, _TEST), ("train", "test"), parts, strict=True):
        if not (output / name / INDEX).exists():
            report(f"{name}: {len(part)} images at {side} pixels")
            write_copies(part, output / name, split, side)
    game = _Game(plan, config, output)
    total = plan.seeds * (1 + len(plan.strategies) * (len(plan.sizes) - 1))
    cells: list[Cell] = []

    def played(seed: int, strategy: str, images: list[str], size: int | None) -> Cell:
        cell = game.play(seed, strategy, images, size)
        cells.append(cell)
        report(
            f"[{len(cells)}/{total}] seed {seed}, {strategy}, {cell.labelled} labelled: Dice {cell.dice:.4f}"
        )
        return cell

    for seed in range(plan.seeds):
        shuffled = np.random.default_rng([seed, 1]).permutation(len(game.pool))
        first = [game.pool[i].image_id for i in shuffled[: plan.sizes[0]]]
        start = played(seed, START, first, plan.sizes[1])
        for strategy in plan.strategies:
            cell = start
            for place, size in enumerate(plan.sizes[1:], start=1):
                following = plan.sizes[place + 1] if place + 1 < len(plan.sizes) else None
                images = [*cell.images, *cell.next[strategy]]
                assert len(images) == size
                cell = played(seed, strategy, images, following)
    return cells


class _Game:
    """The small images, and how a cell is played with them."""

    def __init__(self, plan: Plan, config: RunConfig, output: Path) -> None:
        self.plan, self.config, self.output = plan, config, output
        self.pool = read_index(output / _POOL / INDEX)
        self._pixels: dict[str, NDArray[np.uint8]] = {}

    def play(self, seed: int, strategy: str, images: list[str], size: int | None) -> Cell:
        """Train on ``images``, score, and rank the rest for a round that ends with ``size`` images."""
        file = self.output / "cells" / f"{seed}-{strategy}-{len(images)}.json"
        if file.exists():
            return Cell(**json.loads(file.read_text(encoding="utf-8")))
        begin = time.monotonic()
        chosen = set(images)
        with tempfile.TemporaryDirectory(dir=self.output, prefix="cell.") as name:
            folder = Path(name)
            write_index(
                [replace(r, split="train").rebased(folder) for r in self.pool if r.image_id in chosen],
                folder / "labelled.csv",
            )
            run = folder / "run"
            score = train(self._settings(folder, seed), run, quiet=True).best_dice
            strategies = [s for s in self.plan.strategies if size and strategy in (START, s)]
            following = self._next(run, strategies, images, (size or 0) - len(images), seed)
        cell = Cell(seed, strategy, images, score, round(time.monotonic() - begin, 1), following)
        atomic_write(file, (json.dumps(asdict(cell)) + "\n").encode())
        return cell

    def _settings(self, folder: Path, seed: int) -> RunConfig:
        data = self.config.data
        source = data.train[0].model_copy(update={"index": str(folder / "labelled.csv"), "split": "train"})
        test = data.val[0].model_copy(
            update={"index": str((self.output / _TEST / INDEX).absolute()), "split": "test"}
        )
        t = self.config.training
        return self.config.model_copy(
            update={
                "seed": seed,
                "data": data.model_copy(
                    update={
                        "train": (source,),
                        "val": (test,),
                        "cache_dir": str(folder / "cache"),
                        "cache_size": t.image_size,
                    }
                ),
                # once, at the end: the test images choose nothing
                "training": t.model_copy(update={"validate_every": t.epochs}),
            }
        )

    def _next(
        self, run: Path, strategies: Sequence[Strategy], known: list[str], count: int, seed: int
    ) -> dict[str, list[str]]:
        """The next images by each strategy, with the network of a run."""
        rest = [row for row in self.pool if row.image_id not in set(known)]
        orders: dict[str, Sequence[int]] = {}
        if "random" in strategies:
            orders["random"] = np.random.default_rng([seed, 2, len(known)]).permutation(len(rest)).tolist()
        asking = [s for s in strategies if s != "random"]
        if asking:
            model = RunModel(run)
            looks = [self._look(model, row, turned="disagreement" in asking) for row in rest]
            labelled = None
            if SPREADING.intersection(asking):
                there = [self._look(model, row) for row in self.pool if row.image_id in set(known)]
                labelled = np.stack([look.descriptor for look in there])
            orders |= {s: rank(looks, s, known=labelled) for s in asking}
        return {s: [rest[i].image_id for i in order[:count]] for s, order in orders.items()}

    @torch.inference_mode()
    def _look(self, model: RunModel, row: IndexRow, *, turned: bool = False) -> Look:
        """As ``rank.look_at``, with a network that is no bundle yet."""
        if row.image_id not in self._pixels:
            self._pixels[row.image_id] = load_image(open_image(row)).pixels
        pixels = self._pixels[row.image_id]
        image = to_input(pixels, model.preprocessing)
        x = torch.from_numpy(stack_views(image) if turned else image[None]).to(model.device)
        network, pooled = model.network, None
        if isinstance(network, SegmentationNetwork):
            maps = network.encode(x)
            logits = network.decode(maps, (x.shape[-2], x.shape[-1]))
            pooled = torch.cat([m[0].float().mean((1, 2)) for m in reversed(maps)]).cpu().numpy()
        else:
            logits = network(x)
        probability = model.lesion(logits)
        cleaned = clean(probability[0], Postprocessing())
        confidence = boundary_confidence(probability[0], cleaned) if cleaned.count else 0.0
        return make_look(probability, pixels, pooled, confidence=confidence, threshold=cleaned.threshold)


def _claim(output: Path, plan: Plan, config: RunConfig, parts: Sequence[Sequence[IndexRow]]) -> None:
    """Write down what is simulated in a folder, or find that it is the same as before."""
    wanted: dict[str, Any] = {
        "plan": asdict(plan),
        "config": config.model_dump(mode="json"),
        "images": [[row.image_id for row in part] for part in parts],
    }
    text = json.dumps(wanted, indent=1) + "\n"
    file = output / "plan.json"
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise UsageError("the folder holds a simulation with other settings", file=output, hint="another -o")
    atomic_write(file, text.encode())
