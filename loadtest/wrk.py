"""wrk: closed loop, so many connections, each with one request in flight."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol import OURS, Protocol
from runs import LoadError
from servers import Server

Work = Callable[[Callable[[], bool]], None]
"""What is done beside the load; it is given a function that says whether wrk still runs."""

SCRIPTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Load:
    """What wrk does."""

    script: str
    arguments: list[str]
    connections: int
    path: str | None = None
    """Where, if not where the server's protocol says."""
    headers: tuple[str, ...] = ()
    """Besides those of the script."""


def rows(count: int, connections: int, protocol: Protocol = OURS, headers: tuple[str, ...] = ()) -> Load:
    """Requests with `count` random rows each."""
    arguments = [str(count), protocol.body, protocol.row, str(protocol.first_item), str(protocol.users)]
    return Load("rows.lua", arguments, connections, headers=headers)


def bodies(rows: int, connections: int, file: Path, body_bytes: int, path: str) -> Load:
    """Requests with the binary bodies in `file`, each of `rows` rows."""
    return Load("rows.lua", [str(rows), str(file), str(body_bytes)], connections, path)


def run(
    server: Server, load: Load, seconds: int, work: Work = lambda is_running: None, *, ends_with_work: bool = False
) -> dict[str, Any]:
    """Loads `server` for so long while `work` is done, or no longer than that takes; what the script printed in the
    end."""
    command = _command(server, load, seconds)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            work(lambda: process.poll() is None)
            if ends_with_work:
                # It prints what it counted so far.
                process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=seconds + GRACE_S)
        finally:
            process.kill()
    try:
        report: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise LoadError(f"wrk printed no figures: {output}") from error
    return report


@contextmanager
def beside(server: Server, load: Load) -> Iterator[None]:
    """Loads `server` until the block ends, whatever comes of it."""
    command = _command(server, load, MAX_BESIDE_S)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
            if process.poll() is not None:
                raise LoadError(f"wrk ended with status {process.returncode} before the load that it ran beside")
        finally:
            process.kill()


def _command(server: Server, load: Load, seconds: int) -> list[str]:
    return [
        "wrk",
        "--threads", str(min(THREADS, load.connections)),
        "--connections", str(load.connections),
        "--duration", f"{seconds}s",
        "--timeout", f"{REQUEST_TIMEOUT_S}s",
        *(word for header in load.headers for word in ("--header", header)),
        "--script", str(SCRIPTS / load.script),
        server.url(load.path), "--", *load.arguments,
    ]  # fmt: skip


def require() -> None:
    """Fails where there is no wrk."""
    if shutil.which("wrk") is None:
        raise LoadError("wrk is not on PATH: install Debian's package `wrk`")


THREADS = max(2, (os.cpu_count() or 1) // 4)
"""So that on a large machine the server is at its limit before wrk is."""
REQUEST_TIMEOUT_S = 5
GRACE_S = 30
MAX_BESIDE_S = 600
