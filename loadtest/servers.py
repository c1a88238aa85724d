"""The servers under test: started on free ports of the loopback, asked now and then, stopped in any case."""

import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bodies

HOST = "127.0.0.1"
MODEL = "recommendation_model"
PATH = f"/api/predict/{MODEL}"


class ServerError(Exception):
    """A server did not start, did not answer as it must, or did not stop."""


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

    def url(self, path: str = PATH) -> str:
        """Where predictions are asked for."""
        return f"http://{HOST}:{self.port}{path}"

    def score(self, rows: list[list[int]]) -> list[Score]:
        """Asks for the scores of `rows` and checks the shape of the answer."""
        answer = call(self.port, "POST", PATH, {"input": rows})
        if answer.status != 200:
            raise ServerError(f"{self.name}: status {answer.status}: {answer.body[:200]!r}")
        output = json.loads(answer.body)["output"]
        if len(output) != len(rows):
            raise ServerError(f"{self.name}: {len(output)} scores for {len(rows)} rows")
        version = int(answer.headers["x-model-version"])
        return [Score(version, value) for value in output]


@dataclass(frozen=True)
class Millrace(Server):
    """Ours, with its management port."""

    management_port: int

    def description(self) -> dict[str, Any]:
        """What the server says of the model."""
        answer = call(self.port, "GET", PATH)
        if answer.status != 200:
            raise ServerError(f"{self.name}: status {answer.status}: {answer.body[:200]!r}")
        description: dict[str, Any] = json.loads(answer.body)
        return description

    def score_bytes(self, path: str, rows: int, body: bytes) -> None:
        """Asks for the scores of a body of so many rows and checks the size of the answer."""
        answer = call(self.port, "POST", path, body, bodies.HEADERS)
        if answer.status != 200 or len(answer.body) != 4 * rows:
            raise ServerError(f"{self.name}: status {answer.status}: {answer.body[:200]!r}")

    def promote(self, version: int) -> None:
        """Makes `version` answer; returns once it does."""
        answer = call(self.management_port, "POST", f"/models/{MODEL}/promote", {"version": version})
        if answer.status != 200:
            raise ServerError(f"promote {version}: status {answer.status}: {answer.body[:200]!r}")

    def loads(self) -> int:
        """Versions loaded since the start, from the server's metrics."""
        text = call(self.management_port, "GET", "/metrics").body.decode()
        lines = [line for line in text.splitlines() if line.startswith("millrace_model_loads_total{")]
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if 'result="ok"' in line)

    def is_ready(self) -> bool:
        """Whether every model answers."""
        return call(self.management_port, "GET", "/readyz").status == 200


@contextmanager
def millrace(binary: Path, models: Path, onnxruntime: str, config: Path, log: Path) -> Iterator[Millrace]:
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
    with _process(command, log) as process:
        server = Millrace("millrace", process.pid, port, management_port)
        _wait(process, log, server.is_ready)
        yield server


@contextmanager
def ceiling(binary: Path, rows: int, log: Path) -> Iterator[Server]:
    """The bare server that ours is compared with, until the block ends."""
    port = free_port()
    command = [str(binary), "--listen", f"{HOST}:{port}", "--rows", str(rows)]
    with _process(command, log) as process:
        server = Server("ceiling", process.pid, port)
        _wait(process, log, lambda: len(server.score([[1, 1]] * rows)) == rows)
        yield server


def call(
    port: int, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request on a connection of its own; a body that is not bytes is sent as JSON."""
    connection = http.client.HTTPConnection(HOST, port, timeout=CALL_TIMEOUT_S)
    try:
        payload = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, payload, headers or {"Content-Type": "application/json"})
        response = connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, answered, response.read())
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
            _stop(process, log)
        finally:
            process.kill()


def _stop(process: subprocess.Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"a server did not stop within {STOP_TIMEOUT_S} s: {_tail(log)}") from error
    if status != 0:
        raise ServerError(f"a server ended with status {status}: {_tail(log)}")


def _wait(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"a server ended with status {process.returncode} at once: {_tail(log)}")
        try:
            if is_ready():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise ServerError(f"a server was not ready within {START_TIMEOUT_S} s: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


CALL_TIMEOUT_S = 30
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 45
