"""Structured logs: one JSON object per line on stderr, with the request's id and the key's id.

What gets in is listed at each call: routes as templates, numbers, codes. Paths, query strings, headers, file
names and texts of unexpected errors do not: any of them may be about a patient. Of what a library remarks
(python-multipart about a damaged form, asyncio about a lost exception) only the library's name is written:
it may quote what it was given.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_OWN = ("dermseg", "uvicorn")
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, event, and what was given as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        data: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if record.name.partition(".")[0] not in _OWN:
            return json.dumps(data | {"event": "library", "library": record.name})
        data["event"] = record.getMessage()
        data |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info and record.exc_info[0] is not None:  # a library's: the kind, not the text
            data["kind"] = record.exc_info[0].__name__
        return json.dumps(data, default=str)


def configure_logs() -> None:
    """Send the logs of the server, and what uvicorn and other libraries say, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().handlers = [handler]  # at its own level: warnings
    for name in _OWN:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.access").disabled = True  # has raw paths; the gate writes its own line
