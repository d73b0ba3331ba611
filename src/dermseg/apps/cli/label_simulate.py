"""``dermseg label simulate``: the loop of labelling and training, played on known labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermseg.apps.cli.common import JsonOption, comma_list, goes_on, print_json, say
from dermseg.errors import MissingExtraError, UsageError


def simulate_(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Index of images whose masks are known.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for cells, table and plot.")] = Path(
        "runs/simulate"
    ),
    split: Annotated[str, typer.Option("--split", help="Images that may be labelled.")] = "train",
    test: Annotated[str, typer.Option("--test-split", help="Images to score on.")] = "test",
    sizes: Annotated[
        str, typer.Option("--sizes", help="Labelled images at the start and after each round.")
    ] = "10,20,40,80",
    strategies: Annotated[
        str, typer.Option("--by", help="Strategies of 'label rank' to compare.")
    ] = "random,uncertainty,disagreement,diversity,mixed",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Repetitions.")] = 3,
    pool: Annotated[
        int | None, typer.Option("--pool", min=2, help="Use only so many to choose from.")
    ] = None,
    test_images: Annotated[
        int | None, typer.Option("--test-images", min=1, help="Use only so many to score on.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Train every cell from a bundle, run or .safetensors file."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the trainings, repeatable."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Compare what to label next on images with known labels.

    Labelling and training are played for each strategy: which needs the fewest labels?
    The same command goes on after any interruption. Needs the extra 'train' (and 'weights', unless --from).
    """
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError("'dermseg label simulate' (torch)", "train") from None

    import cv2

    from dermseg.data.index import read_index
    from dermseg.experiments.copies import INDEX
    from dermseg.experiments.curves import draw, summarize, write_cells
    from dermseg.experiments.simulate import RECIPE, Plan, simulate
    from dermseg.files import check_writable, write_json
    from dermseg.labeling.rank import STRATEGIES
    from dermseg.training.start import load_run

    names = comma_list(strategies)
    chosen = tuple(known for known in STRATEGIES if known in names)
    if unknown := [name for name in names if name not in STRATEGIES]:
        raise UsageError(f"--by '{unknown[0]}' is not known", hint=f"of: {', '.join(STRATEGIES)}")
    try:
        steps = tuple(int(part) for part in sizes.split(","))
    except ValueError:
        raise UsageError(f"--sizes '{sizes}' are not numbers", hint="--sizes 10,20,40,80") from None
    plan = Plan(steps, chosen, seeds=seeds, pool=pool, test=test_images)
    check_writable(output)
    config = load_run(RECIPE, from_, set_ or ())
    cv2.setNumThreads(1)
    with goes_on("The same command goes on from there."):
        cells = simulate(index, (split, test), plan, config, output, report=say)
    summary = {
        "index": index.name,
        "splits": {"pool": split, "test": test},
        "images": {part: len(read_index(output / part / INDEX)) for part in ("pool", "test")},
        "from": from_,
        **summarize(cells, steps, chosen),
    }
    write_json(output / "simulate.json", summary)
    write_cells(cells, chosen, output / "simulate.csv")
    draw(summary, output)
    for strategy, found in summary["strategies"].items():
        dice = ", ".join(f"{row['labelled']}: {row['mean']:.4f}" for row in found["dice"])
        needs = found.get("labels_share", {}).get("share")
        say(
            f"{strategy}: Dice {dice}"
            + ("" if needs is None else f"; needs {100 * needs:.0f} % of random's labels")
        )
    say(f"{output / 'simulate.png'}")
    if json_:
        print_json(summary)
