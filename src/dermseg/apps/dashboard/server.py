"""Start Streamlit with settings for images of patients: local, nothing sent, nothing watched."""

from __future__ import annotations

import os
import socket
from importlib import resources
from typing import Any

from dermseg.apps.dashboard.settings import Settings
from dermseg.errors import UsageError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def options(settings: Settings, *, host: str, port: int, browser: bool) -> dict[str, Any]:
    """Streamlit's configuration, by the names of its flags; an older one warns of those it does not know."""
    return {
        "server_address": host,
        "server_port": port,
        # A web page may give its own name the address 127.0.0.1 (DNS rebinding), which shows in Host.
        "server_allowedHosts": list(_LOOPBACK) if host in _LOOPBACK else [],
        # Whatever Streamlit's own configuration files, made for other programs, say of them.
        "server_enableCORS": True,
        "server_enableXsrfProtection": True,
        "server_corsAllowedOrigins": [],
        "server_headless": not browser,
        "server_maxUploadSize": settings.max_upload_mb,
        "server_fileWatcherType": "none",
        "server_showEmailPrompt": False,
        "browser_gatherUsageStats": False,
        "browser_serverAddress": host,
        "client_toolbarMode": "minimal",
        "client_showErrorDetails": "none",
        "client_allowedOrigins": [],  # by default pages at streamlit.app and others may steer it in a frame
        "runner_magicEnabled": False,
        "theme_light_textColor": "#0e1116",  # captions are a paler tone of it: dark enough to be read
        "theme_light_primaryColor": "#0072B2",
        "theme_dark_primaryColor": "#56B4E9",
    }


def check_address(host: str, port: int) -> None:
    """See that the program can listen there: Streamlit ends in a traceback, or without a word of what to do.

    Raises
    ------
    UsageError
        The port is taken, or the address is not one of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            if os.name != "nt":  # one that has just ended keeps nobody out; on Windows it means another thing
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="another program may have the port: --port OTHER; --host takes an address of this machine",
        ) from None


def serve(settings: Settings, *, host: str, port: int, browser: bool) -> None:
    """Serve until Ctrl-C."""
    from streamlit import net_util
    from streamlit.web import bootstrap

    flags = options(settings, host=host, port=port, browser=browser)
    # For a connection from a page of another place Streamlit asks a web service what address it has itself.
    net_util.get_external_ip = lambda: None
    script = os.fspath(resources.files("dermseg.apps.dashboard") / "script.py")  # type: ignore[call-overload]
    bootstrap.load_config_options(flags)
    bootstrap.run(script, False, [settings.model_dump_json()], flags)
