"""``dermseg serve``: the REST server, and keys for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dermseg.apps.cli.common import new_app, say
from dermseg.errors import ConfigError

app = new_app()
# Where a setting comes from, unless it is the option of its name.
_WHERE = {
    "models": "--model",
    "keys_file": "--keys",
    "keys": "DERMSEG_API_KEYS",
    "cors_origins": "--cors-origin",
}


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    *,
    state: Annotated[
        Path, typer.Option(envvar="DERMSEG_STATE", help="Folder for jobs, their database and the audit log.")
    ] = Path("dermseg-state"),
    host: Annotated[
        str, typer.Option(envvar="DERMSEG_HOST", help="Address to listen on; other than loopback needs keys.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="DERMSEG_PORT", help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BUNDLE",
            envvar="DERMSEG_MODEL",
            help="Bundle's name, folder or zip; repeat for several. Requests that name none get the "
            "first. Default: default.",
        ),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(envvar="DERMSEG_RUNTIME", help="As for segment; default: onnxruntime.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(envvar="DERMSEG_KEYS_FILE", help="YAML file of API keys (see new-key).")
    ] = None,
    audit_key_file: Annotated[
        Path | None, typer.Option(envvar="DERMSEG_AUDIT_KEY_FILE", help="Key of the audit log's hash chain.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(envvar="DERMSEG_WORKERS", help="Images at once; default: the CPUs.")
    ] = None,
    queue: Annotated[
        int, typer.Option(envvar="DERMSEG_QUEUE", help="Images that may wait; one more is refused.")
    ] = 32,
    max_body_mb: Annotated[
        float, typer.Option(envvar="DERMSEG_MAX_BODY_MB", help="Refuse larger image files.")
    ] = 50.0,
    max_megapixels: Annotated[
        float, typer.Option(metavar="MP", envvar="DERMSEG_MAX_MEGAPIXELS", help="Refuse larger images.")
    ] = 100.0,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            envvar="DERMSEG_CORS_ORIGIN",
            help="Web pages from here may call; repeat for several.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="DERMSEG_TLS_CERT", help="Certificate for HTTPS, PEM.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(envvar="DERMSEG_TLS_KEY", help="Its key, PEM.")] = None,
) -> None:
    """Serve over HTTP: images in, masks out. Ctrl-C or SIGTERM ends it, after what was accepted is answered.

    API keys may also be given as id=sha256 pairs, separated by commas, in DERMSEG_API_KEYS. Logs are JSON
    lines on stderr. Not a medical device.
    """
    if context.invoked_subcommand is not None:
        return
    import os

    from pydantic import ValidationError

    from dermseg.apps.api.server import serve as run
    from dermseg.apps.api.settings import Settings
    from dermseg.schema import words_of

    given = {
        "state": state,
        "host": host,
        "port": port,
        "models": tuple(model or ["default"]),
        "runtime": runtime,
        "keys_file": keys,
        "keys": os.environ.get("DERMSEG_API_KEYS", ""),
        "audit_key_file": audit_key_file,
        "queue": queue,
        "max_body_mb": max_body_mb,
        "max_megapixels": max_megapixels,
        "cors_origins": tuple(cors_origin or ()),
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        **({} if workers is None else {"workers": workers}),
    }
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        where = _WHERE.get(field, f"--{field.replace('_', '-')}")
        raise ConfigError(f"{where}: {words_of(first)}" if field else words_of(first)) from None
    run(settings)


@app.command("new-key")
def new_key(
    name: Annotated[str, typer.Argument(metavar="ID", help="Short name for logs and audit, such as ris.")],
) -> None:
    """Make an API key.

    It is shown once, on stderr; the lines for the key file go to stdout. The first key: (echo keys:; dermseg
    serve new-key ris) > keys.yaml. Further ones: dermseg serve new-key viewer >> keys.yaml.
    """
    from pydantic import ValidationError

    from dermseg.apps.api.keys import Client
    from dermseg.apps.api.keys import new_key as make

    key, digest = make()
    try:
        Client(id=name, sha256=digest)
    except ValidationError:
        raise ConfigError(f"'{name}' is not a short name of letters, digits, dots and dashes") from None
    sys.stdout.write(f"  - id: {name}\n    sha256: {digest}\n")
    say(f"API key of {name}, shown only now: {key}")
