"""``dermseg export``: from a run folder to a bundle that needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import onnx  # noqa: F401  (a missing [train] extra must show before anything else happens)
import torch  # noqa: F401
import typer

from dermseg.apps.cli.common import new_app, print_json, say

app = new_app()


@app.command()
def export(
    *,
    run: Annotated[Path, typer.Argument(help="Run folder of 'dermseg train'.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")],
    name: Annotated[str | None, typer.Option(help="Name in the card; default: the folder's name.")] = None,
    version: Annotated[str, typer.Option(help="Version in the card.")] = "1",
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unspecified",
    summary: Annotated[str, typer.Option(help="One line about the model.")] = "",
    note: Annotated[
        list[str] | None, typer.Option(help="Something a reader of the card should know, repeatable.")
    ] = None,
    opset: Annotated[int, typer.Option(help="ONNX opset.")] = 18,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Export the best weights of RUN to ONNX, check them against torch, choose the threshold on the run's
    validation images and write card.json."""
    from dermseg.export.bundle import Named, export_run

    named = Named(name or output.name, version, licence, summary, tuple(note or ()))
    card = export_run(run, output, named, opset=opset, report=say)
    variant = card.variants[card.default_variant]
    say(f"{output}: {variant.bytes / 1e6:.1f} MB, threshold {card.postprocessing.threshold}")
    if as_json:
        print_json(card.model_dump(mode="json"))
