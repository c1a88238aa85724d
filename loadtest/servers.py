"""The servers under test: started on free ports of the loopback, asked now and then, stopped in any case."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bodies
import machine
from protocol import MODEL, OURS, Protocol

HOST = "127.0.0.1"


class ServerError(Exception):
    """A server did not start, did not answer as it must, or did not stop."""


class StartError(ServerError):
    """A server did not start."""


@dataclass(frozen=True)
class Answer:
    """One answer over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Score:
    """One row's score and the version that gave it."""

    version: int
    value: float


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    pid: int
    port: int
    protocol: Protocol = field(default=OURS, kw_only=True)

    def url(self, path: str | None = None) -> str:
        """Where predictions are asked for, unless at another path."""
        return f"http://{HOST}:{self.port}{path or self.protocol.path}"

    def score(self, rows: list[list[int]]) -> list[Score]:
        """Asks for the scores of `rows` and the version that gave them."""
        answer, values = self._ask(rows)
        version = int(answer.headers["x-model-version"])
        return [Score(version, value) for value in values]

    def values(self, rows: list[list[int]]) -> list[float]:
        """Asks for the scores of `rows`."""
        return self._ask(rows)[1]

    def _ask(self, rows: list[list[int]]) -> tuple[Answer, list[float]]:
        answer = call(self.port, "POST", self.protocol.path, self.protocol.request(rows))
        if answer.status != 200:
            raise ServerError(f"{self.name}: status {answer.status}: {answer.body[:200]!r}")
        values = self.protocol.scores(json.loads(answer.body))
        if len(values) != len(rows):
            raise ServerError(f"{self.name}: {len(values)} scores for {len(rows)} rows")
        return answer, values


@dataclass(frozen=True)
class Millrace(Server):
    """Ours, with its management port."""

    management_port: int

    def description(self) -> dict[str, Any]:
        """What the server says of the model."""
        answer = call(self.port, "GET", self.protocol.path)
        if answer.status != 200:
            raise ServerError(f"{self.name}: status {answer.status}: {answer.body[:200]!r}")
        description: dict[str, Any] = json.loads(answer.body)
        return description

    def score_bytes(self, path: str, rows: int, body: bytes) -> None:
        """Asks for the scores of a body of so many rows and checks the size of the answer."""
        answer = call(self.port, "POST", path, body, bodies.HEADERS)
        if answer.status != 200 or len(answer.body) != 4 * rows:
            raise ServerError(f"{self.name}: status {answer.status}: {answer.body[:200]!r}")

    def promote(self, version: int, model: str = MODEL, timeout: float | None = None) -> None:
        """Makes `version` of a model answer; returns once it does."""
        body = json.dumps({"version": version})
        answer = call(self.management_port, "POST", f"/models/{model}/promote", body, timeout=timeout)
        if answer.status != 200:
            raise ServerError(f"promote {version}: status {answer.status}: {answer.body[:200]!r}")

    def loads(self) -> int:
        """Versions loaded since the start, from the server's metrics."""
        return int(self.metric("millrace_model_loads_total", 'result="ok"'))

    def metric(self, name: str, labels: str = "") -> float:
        """The sum of a metric over everything that has these labels; 0 where there is nothing."""
        text = call(self.management_port, "GET", "/metrics").body.decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if labels in line)

    def is_ready(self) -> bool:
        """Whether every model answers; `StartError` where a version failed to load, for then one of them never will."""
        answer = call(self.management_port, "GET", "/models")
        for model in json.loads(answer.body)["models"] if answer.status == 200 else []:
            for version in model["versions"]:
                if version["state"] == "failed":
                    raise StartError(f"{model['model']} version {version['version']}: {version['reason']}")
        return call(self.management_port, "GET", "/readyz").status == 200


@contextmanager
def millrace(
    binary: Path, models: Path, onnxruntime: str, config: Path, log: Path, name: str = "millrace"
) -> Iterator[Millrace]:
    """Ours, until the block ends."""
    port, management_port = free_port(), free_port()
    command = [
        str(binary), "serve",
        "--listen", f"{HOST}:{port}",
        "--management-listen", f"{HOST}:{management_port}",
        "--models-dir", str(models),
        "--onnxruntime", onnxruntime,
        "--config", str(config),
    ]  # fmt: skip
    with process(command, log) as running:
        server = Millrace(name, running.pid, port, management_port)
        wait(running, log, server.is_ready)
        yield server
        _stop(running, log)


@contextmanager
def ceiling(binary: Path, rows: int, log: Path) -> Iterator[Server]:
    """The bare server that ours is compared with, until the block ends."""
    port = free_port()
    command = [str(binary), "--listen", f"{HOST}:{port}", "--rows", str(rows)]
    with process(command, log) as running:
        server = Server("ceiling", running.pid, port)
        wait(running, log, lambda: len(server.score([[1, 1]] * rows)) == rows)
        yield server
        _stop(running, log)


@contextmanager
def process(
    command: list[str], log: Path, folder: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, in `folder` and with these additions to the environment; when the block
    ends it is killed with all that it started."""
    variables = os.environ | (environment or {})
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=variables, start_new_session=True
        ) as running,
    ):
        try:
            yield running
        finally:
            _kill(machine.tree(running.pid))


def terminate(running: subprocess.Popen[bytes]) -> None:
    """Asks a process to stop; kills what is left of it and of those that it started."""
    # Those in sessions of their own cannot be found any more once it is gone.
    started = machine.tree(running.pid)
    running.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        running.wait(STOP_TIMEOUT_S)
    _kill(started | machine.tree(running.pid))


def wait(running: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    """Waits until the server is ready."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if running.poll() is not None:
            raise StartError(f"a server ended with status {running.returncode} at once: {_tail(log)}")
        try:
            if is_ready():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise StartError(f"a server was not ready within {START_TIMEOUT_S} s: {_tail(log)}")


def call(
    port: int,
    method: str,
    path: str,
    body: str | bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float | None = None,
) -> Answer:
    """One request on a connection of its own, with JSON in its body unless the headers say otherwise."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout or CALL_TIMEOUT_S)
    try:
        connection.request(method, path, body, headers or {"Content-Type": "application/json"})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _stop(running: subprocess.Popen[bytes], log: Path) -> None:
    running.send_signal(signal.SIGTERM)
    try:
        status = running.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"a server did not stop within {STOP_TIMEOUT_S} s: {_tail(log)}") from error
    if status != 0:
        raise ServerError(f"a server ended with status {status}: {_tail(log)}")


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


CALL_TIMEOUT_S = 60
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 45
