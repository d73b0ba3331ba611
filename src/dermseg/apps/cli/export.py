"""``dermseg export``: from a run folder, or a foreign ONNX file, to a bundle that needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import onnx  # noqa: F401  (a missing [train] extra must show before anything else happens)
import torch  # noqa: F401
import typer

from dermseg.apps.cli.common import comma_list, new_app, print_json, refuse_unused, say
from dermseg.errors import UsageError

if TYPE_CHECKING:
    from dermseg.inference.card import ModelCard

app = new_app()


@app.command()
def export(
    *,
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Run folder of 'dermseg train'.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")],
    onnx_: Annotated[
        Path | None, typer.Option("--onnx", metavar="FILE", help="Instead of RUN: an ONNX file of others.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(metavar="YAML", help="With --onnx: what the network needs and gives.")
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Files to write, with commas: fp16 (where none is given), fp32, int8-weights, int8, "
            "openvino. The first of fp16, fp32 and int8-weights is the bundle's default.",
        ),
    ] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Also a graph from pixels to mask, for other programs.")
    ] = False,
    opset: Annotated[
        int | None, typer.Option(min=13, max=23, help="Opset of the ONNX files; 20 where not given.")
    ] = None,
    prune: Annotated[
        int | None, typer.Option(metavar="DEPTH", help="Of a UNet++ only the levels down to this depth.")
    ] = None,
    partner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A bundle inside the package whose logits are averaged with this network's."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Keep variants that are slower or lose over 0.3 Dice points.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name in the card; default: the folder's name.")] = None,
    version: Annotated[str | None, typer.Option(help="Version in the card; 1 where not given.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights; default: of the bundle they began with.")
    ] = None,
    summary: Annotated[str | None, typer.Option(help="One line about the model.")] = None,
    note: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Something a reader of the card should know, repeatable."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle that is in the folder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Make a bundle.

    Of RUN: its best weights become ONNX and other variants, each compared with torch and timed; threshold and
    post-processing are chosen on the run's validation images. Of --onnx FILE: the graph is adapted, checked
    and packed with what --card says; it takes no option that belongs to RUN. Exit code 1: a variant that was
    asked for is refused, the rest is done.
    """
    from dermseg.inference.runtimes_openvino import import_openvino

    if (run is None) == (onnx_ is None):
        raise UsageError(
            "one of RUN and --onnx FILE is needed", hint="dermseg export runs/default -o my-bundle"
        )
    if (onnx_ is None) != (card is None):
        raise UsageError("--onnx and --card go together", hint="docs/export.md has an example of a card")
    if onnx_ is not None and card is not None:
        from dermseg.export.foreign import wrap

        of_run = {
            "--variants": variants,
            "--end-to-end": end_to_end or None,
            "--opset": opset,
            "--prune": prune,
            "--partner": partner,
            "--force": force or None,
            "--name": name,
            "--version": version,
            "--licence": licence,
            "--summary": summary,
            "--note": note or None,
        }
        refuse_unused(
            {option: value is not None for option, value in of_run.items()},
            "belong to RUN and do nothing with --onnx",
            hint="name, version, licence and summary are lines of --card; the graph stays as it is",
        )
        made = wrap(onnx_, card, output, overwrite=overwrite)
    else:
        from dermseg.export.bundle import Named, export_run
        from dermseg.export.onnx import OPSET

        assert run is not None
        wanted = comma_list(variants or "fp16")
        if "openvino" in wanted:
            import_openvino()  # says what is missing before minutes have been spent
        made = export_run(
            run,
            output,
            Named(
                name or output.name,
                version or "1",
                licence or "",
                summary or "",
                tuple(note or ()),
            ),
            variants=wanted,
            end_to_end=end_to_end,
            opset=opset or OPSET,
            prune=prune,
            partner=partner,
            force=force,
            overwrite=overwrite,
            report=say,
        )
    _tell(output, made)
    if as_json:
        print_json(made.model_dump(mode="json"))
    if made.export.get("refused"):
        raise typer.Exit(1)


def _tell(output: Path, card: ModelCard) -> None:
    from dermseg.apps.cli.models import variant_lines

    say(f"{output}: {card.name} {card.version}, threshold {card.postprocessing.threshold:.4g}")
    for line in variant_lines(card):
        say(line)
    for name, reason in card.export.get("refused", {}).items():
        say(f"  refused       {name}: {reason}")
