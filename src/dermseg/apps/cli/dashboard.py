"""``dermseg dashboard``: the program in a browser, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermseg.apps.cli.common import new_app, say
from dermseg.errors import MissingExtraError, UsageError

app = new_app()


@app.command()
def dashboard(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE",
            help="Bundle's name, folder or zip; repeat to choose between several. Default: what comes along.",
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Show trainings, suites and evaluations below it.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; there is no login.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8501,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    max_upload_mb: Annotated[int, typer.Option(min=1, max=4096, help="Refuse larger files.")] = 200,
    max_megapixels: Annotated[float, typer.Option(metavar="MP", help="Refuse larger images.")] = 100.0,
) -> None:
    """Outline lesions in a browser: single images, batches, comparisons, results. Ctrl-C ends it.

    Images stay in this program's memory; nothing is stored and nothing is sent. Not a medical device.
    """
    from importlib.util import find_spec

    from dermseg.inference.bundle import bundled_names, load_bundle

    if find_spec("streamlit") is None:
        raise MissingExtraError("'dermseg dashboard' (streamlit)", "dashboard")
    if results is not None and not results.is_dir():
        raise UsageError("is not a folder", file=results)
    if not 0 < max_megapixels <= 10_000:
        raise UsageError(f"--max-megapixels must lie between 0 and 10000, got {max_megapixels}")
    from dermseg.apps.dashboard.server import check_address, serve
    from dermseg.apps.dashboard.settings import Settings

    models = tuple(model or bundled_names())
    for name in models:
        load_bundle(name)  # a wrong name ends here, not in the browser
    settings = Settings(
        models=models,
        results=None if results is None else results.resolve(),
        max_upload_mb=max_upload_mb,
        max_megapixels=max_megapixels,
    )
    check_address(host, port)
    say(f"dermseg dashboard: http://{host}:{port}")
    serve(settings, host=host, port=port, browser=browser)
