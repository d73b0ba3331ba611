"""``dermseg uncertainty``: fit what a bundle says about its own outlines, and measure whether it is true."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermseg.apps.cli.common import JsonOption, ModelOption, goes_on, new_app, print_json, say, say_left_out
from dermseg.words import counted

app = new_app()

Data = Annotated[list[Path], typer.Option("--data", metavar="INDEX", help="Index of a data set, repeatable.")]


@app.callback()
def uncertainty() -> None:
    """Fit and measure expected Dice, calibration and margins of a bundle."""


@app.command()
def fit(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle; it is changed.")],
    *,
    data: Data,
    caught: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the failures that needs_review is to catch.")
    ] = 0.8,
    as_json: JsonOption = False,
) -> None:
    """Fit temperature, expected Dice and margins of a bundle.

    On the splits 'calib' and 'val' of the indexes, neither trained on. Needs the extra 'train'.
    """
    from dermseg.export.fit_trust import fit_bundle
    from dermseg.inference.bundle import load_bundle
    from dermseg.uncertainty.margins import no_margins
    from dermseg.uncertainty.trust import load_trust

    fit_bundle(bundle, data, caught=caught, report=say)
    trust = load_trust(load_bundle(bundle))
    assert trust is not None
    summary = {"fitted": trust.fitted, "predicted_dice": trust.dice.figures}
    if as_json:
        print_json(summary)
    else:
        say(f"temperature {trust.fitted['temperature']}; expected Dice, of images left out of its fit:")
        for figure, value in trust.dice.figures.items():
            say(f"  {figure:<28}{value:g}")
    if why := no_margins(trust):
        say(why)


@app.command()
def evaluate(
    *,
    data: Data,
    split: Annotated[str, typer.Option(help="Split to measure on; nothing may have been fitted on it.")] = (
        "test"
    ),
    model: ModelOption = "default",
    margin: Annotated[float, typer.Option(metavar="A", help="Level of the margins, as in segment.")] = 0.1,
    as_json: JsonOption = False,
) -> None:
    """Measure on images with reference masks how well they hold.

    Expected Dice, calibration, margins and Monte-Carlo dropout.
    """
    from dermseg.apps.cli.counter import ImageCounter
    from dermseg.data.index import read_index
    from dermseg.data.splits import regroup
    from dermseg.evaluation.evaluate import select_split
    from dermseg.evaluation.looks import collect
    from dermseg.evaluation.output import format_trust
    from dermseg.evaluation.trust import judge, missing_margins, summarise
    from dermseg.inference.predictor import load_model
    from dermseg.uncertainty.opinions import has_mc_dropout, load_mc_session

    loaded = load_model(model)
    if why := missing_margins(loaded, margin):
        say(why)
    session = load_mc_session(loaded.bundle) if has_mc_dropout(loaded.bundle) else None
    rows = regroup([row for index in data for row in read_index(index)])
    rows, without_mask = select_split(rows, split)
    say_left_out(split, without_mask, ())  # one that cannot be read ends it
    kept = "Nothing is said: figures of the first images are not those of the split."
    with goes_on(kept), ImageCounter("measuring", len(rows)) as progress:
        looks = collect(loaded, rows, session=session, progress=progress.advance)
        judged = judge(loaded, looks, margin)
    summary = summarise(judged, margin)
    if as_json:
        print_json(summary)
        return
    for name, block in summary.items():
        say(f"{name}: {counted(block['n'], 'image')}, {counted(block['failures'], 'failure')}")
        say(format_trust(block))
