"""``dermseg explain``: Grad-CAM overlays and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermseg.apps.cli.common import (
    InputsArgument,
    JsonOption,
    ModelOption,
    listed_failures,
    new_app,
    print_json,
    say,
)
from dermseg.errors import DermsegError, UsageError
from dermseg.words import counted

app = new_app()


@app.command()
def explain(
    inputs: InputsArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for overlays and arrays.")],
    *,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer", metavar="NAME", help="Layer by name, repeatable; default: the first decoder layer."
        ),
    ] = None,
    model: ModelOption = "default",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is there.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Show which parts of an image the outline rests on: Grad-CAM (needs the extra 'train').

    Writes NAME.LAYER.png (overlay) and NAME.LAYER.npy (float32, the layer's own size) for each image.
    """
    from dermseg.apps.cli.counter import ImageCounter
    from dermseg.explain.network import default_layer, feature_layers
    from dermseg.explain.picture import explain_image
    from dermseg.export.rebuild import rebuild
    from dermseg.files import check_writable
    from dermseg.images.roles import find_photographs
    from dermseg.inference.outputs import plan_stems
    from dermseg.inference.predictor import load_model

    check_writable(output)
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise UsageError("the folder is not empty", file=output, hint="--overwrite, or another -o")
    sources, remarks = find_photographs(inputs, exclude=[output])
    for remark in remarks:
        say(remark)
    loaded = load_model(model)
    network = rebuild(loaded.bundle)
    names = list(feature_layers(network))
    chosen = layer or [default_layer(names)]
    for name in chosen:
        if name not in names:
            raise UsageError(f"the network has no layer '{name}'", hint=f"it has {', '.join(names)}")
    stems = plan_stems([source.name for source in sources])
    failed, empty = [], []
    with ImageCounter("explaining", len(sources)) as progress:
        for source in progress.count(sources):
            try:
                nothing = explain_image(loaded, network, source, chosen, output / stems[source.name])
            except DermsegError as error:
                failed.append((source.name, error.reason))
                say(f"failed: {source.name}: {error.reason}")
            else:
                empty += [{"file": source.name, "layer": name} for name in nothing]
                for name in nothing:
                    say(f"{source.name}: nothing in layer {name} speaks for the outline; its map is empty")
    say(f"{output}: {counted(len(sources) - len(failed), 'image')}, layers {', '.join(chosen)}")
    if json_:
        print_json(
            {
                "images": len(sources),
                **listed_failures(failed),
                "empty": empty,
                "layers": chosen,
                "known": names,
                "outputs": str(output),
            }
        )
    if failed:
        raise typer.Exit(1)
