"""Whoever is told of alerts, in the form of Alertmanager's webhooks."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from servers import HOST


class Hook(HTTPServer):
    """Takes notifications and keeps their alerts."""

    def __init__(self) -> None:
        """Takes any free port."""
        super().__init__((HOST, 0), _Handler)
        self.port = int(self.server_address[1])
        self.alerts: list[dict[str, Any]] = []

    def has_fired(self, **labels: str) -> bool:
        """Whether an alert with these labels has fired."""
        wanted = labels.items()
        return any(alert["status"] == "firing" and wanted <= alert["labels"].items() for alert in self.alerts)


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        """Notes the alerts of a notification."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.alerts += json.loads(body)["alerts"]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def listen() -> Iterator[Hook]:
    """A hook that listens until the block ends."""
    with Hook() as hook:
        thread = threading.Thread(target=hook.serve_forever, daemon=True)
        thread.start()
        yield hook
        hook.shutdown()
