"""wrk: closed loop, so many connections, each with one request in flight."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import Figures, LoadError
from servers import Server

SCRIPTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Load:
    """What wrk does."""

    script: str
    arguments: list[str]
    connections: int


def rows(count: int, connections: int) -> Load:
    """Requests with `count` random rows each."""
    return Load("rows.lua", [str(count)], connections)


def timed(server: Server, load: Load, seconds: float) -> Figures:
    """Loads `server` for so long."""
    return figures(server, load, lambda: time.sleep(seconds))


def figures(server: Server, load: Load, work: Callable[[], None]) -> Figures:
    """Loads `server` while `work` is done."""
    return Figures(**during(server, load, work))


def during(server: Server, load: Load, work: Callable[[], None]) -> dict[str, Any]:
    """Loads `server` while `work` is done; what the script printed in the end."""
    command = [
        "wrk",
        "--threads", str(THREADS),
        "--connections", str(load.connections),
        "--duration", f"{MAX_SECONDS}s",
        "--timeout", f"{REQUEST_TIMEOUT_S}s",
        "--script", str(SCRIPTS / load.script),
        server.url, "--", *load.arguments,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            work()
            # wrk stops early at this signal and reports as usual.
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=STOP_TIMEOUT_S)
        finally:
            process.kill()
    try:
        return json.loads(output.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise LoadError(f"wrk printed no figures: {output}") from error


def require() -> None:
    """Fails where there is no wrk."""
    if shutil.which("wrk") is None:
        raise LoadError("wrk is not on PATH: install Debian's package `wrk`")


THREADS = 2
REQUEST_TIMEOUT_S = 5
STOP_TIMEOUT_S = 30
MAX_SECONDS = 300
"""The end of a run that is never told to stop."""
