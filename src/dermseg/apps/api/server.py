"""Running the application with uvicorn: graceful end, time limits, HTTPS."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import uvicorn

from dermseg.apps.api.app import create_app
from dermseg.apps.api.logs import configure_logs
from dermseg.apps.api.protocol import MAX_HEAD_BYTES, guarded
from dermseg.apps.api.services import Services
from dermseg.apps.api.settings import Settings
from dermseg.errors import ConfigError, UsageError

# Proxies and load balancers keep a connection for 60 s, and would send a request into one that is just ended.
_KEEP_ALIVE_S = 75


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first.

    Raises
    ------
    DermsegError
        As ``Services.start``; or certificate and key for HTTPS cannot be used; or the port is taken or the
        address is not one of this machine.
    """
    _check_tls(settings.tls_cert, settings.tls_key)
    configure_logs()
    server = make_server(Services.start(settings))
    try:
        with suppress(KeyboardInterrupt):  # uvicorn raises it once all is answered
            server.run()
    except SystemExit:  # uvicorn's way to say that it cannot start; the log has the system's words
        raise UsageError(
            f"cannot listen on {settings.host}:{settings.port}",
            hint="another program may have the port: --port OTHER; --host takes an address of this machine",
        ) from None


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    """See that HTTPS is possible before anything is opened; uvicorn would find out last."""
    if certificate is None or key is None:
        return
    for path, option in ((certificate, "--tls-cert"), (key, "--tls-key")):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{option}: cannot be read: {error.strerror}", file=path) from None
    try:
        # The empty passphrase: else OpenSSL asks for one at the terminal, or ends where there is none.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(
            f"HTTPS is not possible with this certificate and the key {key}: {reason}",
            file=certificate,
            hint="both are PEM files, the key is the certificate's own and has no passphrase",
        ) from None


def make_server(services: Services) -> uvicorn.Server:
    """The server around running services; ``run`` serves until it is told to end, and stops them."""
    settings = services.settings
    config = uvicorn.Config(
        create_app(services),
        host=settings.host,
        port=settings.port,
        http=guarded(settings),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return uvicorn.Server(config)
