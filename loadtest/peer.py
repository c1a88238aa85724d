"""Another inference server: how it is installed, with which settings it is started, and what it understands.

Each has a folder in `peers/` with its pinned packages and `serve.py`, a program that serves one ONNX file and is
told everything by environment variables (`peers/scoring/scorer.py` says which).
"""

import http.client
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import servers
from protocol import Protocol
from servers import Server, ServerError

PEERS_FOLDER = Path(__file__).resolve().parent / "peers"


class InstallError(Exception):
    """A peer's packages cannot be had here."""


@dataclass(frozen=True)
class Setting:
    """How a peer divides its work."""

    workers: int
    batch: int = 1
    """Requests joined at most, rows in BentoML, and in Triton only whether any are; 1 is no batching."""
    wait_ms: float = 0
    """How long a batch waits for more; in BentoML how late an answer may be."""

    def __str__(self) -> str:
        processes = f"{self.workers} worker" + ("s" if self.workers > 1 else "")
        if self.batch == 1:
            return processes
        return f"{processes}, batches of {self.batch}, {self.wait_ms:g} ms"

    def environment(self) -> dict[str, str]:
        """The same as `serve.py` reads it."""
        return {
            "PEER_WORKERS": str(self.workers),
            "PEER_BATCH": str(self.batch),
            "PEER_WAIT_MS": str(self.wait_ms),
        }


@dataclass(frozen=True)
class Peer:
    """One of them."""

    name: str
    protocol: Protocol
    settings: tuple[Setting, ...]
    """Those that its documentation suggests for two cores; the first is likely the best."""
    python: str = sys.executable
    """The Python that its environment is made with."""

    @property
    def folder(self) -> Path:
        """Where its program lies."""
        return PEERS_FOLDER / self.name

    def requirements(self) -> list[str]:
        """Its packages with their versions."""
        lines = (self.folder / "requirements.txt").read_text(encoding="ascii").splitlines()
        return [line for line in lines if not line.startswith("#")]

    def install(self, tools: Path) -> Path:
        """The Python of its environment below `tools`, made where it is missing or of other packages."""
        environment, wanted = tools / self.name, self.folder / "requirements.txt"
        python, installed = environment / "bin/python", environment / "requirements.txt"
        if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
            shutil.rmtree(environment, ignore_errors=True)
            pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([self.python, "-m", "venv", str(environment)])
            _run([str(python), *pip, "--requirement", str(wanted)])
            shutil.copyfile(wanted, installed)
        return python

    @contextmanager
    def serve(self, python: Path, model: Path, setting: Setting, log: Path) -> Iterator[Server]:
        """The server, until the block ends."""
        port = servers.free_port()
        # Short, since sockets are made there, whose paths may not be long.
        with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as work:
            environment = setting.environment() | {
                "PEER_MODEL": str(model),
                "PEER_PORT": str(port),
                "PEER_WORK": work,
                "TMPDIR": work,
                "PYTHONPATH": str(PEERS_FOLDER / "scoring"),
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            command = [str(python), str(self.folder / "serve.py")]
            with servers.process(command, log, Path(work), environment) as running:
                server = Server(self.name, running.pid, port, protocol=self.protocol)
                servers.wait(running, log, lambda: _answers(server))
                yield server
                servers.terminate(running)


def _answers(server: Server) -> bool:
    # Some listen before they have a worker, and answer with an error until then.
    try:
        server.values([[1, server.protocol.first_item]])
    except (ServerError, http.client.HTTPException, ValueError):
        return False
    return True


def _run(command: list[str]) -> None:
    try:
        output = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"not installed: {error}") from error
    if output.returncode != 0:
        lines = (output.stderr or output.stdout).strip().splitlines() or ["no reason given"]
        raise InstallError(f"not installed: {lines[-1]}")


INSTALL_TIMEOUT_S = 1800

_ROWS = Protocol(
    path="/predict",
    body='{"input": [ROWS]}',
    row="[%d, %d]",
    scores=lambda answer: answer["output"],
)
"""Ours at another path, where the protocol is up to the program."""

_V2 = Protocol(
    path="/v2/models/model/infer",
    body='{"inputs": [{"name": "ids", "shape": [COUNT, 2], "datatype": "INT32", "data": [ROWS]}]}',
    row="%d, %d",
    scores=lambda answer: answer["outputs"][0]["data"],
)
"""The Open Inference Protocol, in JSON."""

_DEBIAN = "/usr/bin/python3"
"""Triton's wheel embeds early patch releases of Python, to which the standard library of later ones is strange."""

PEERS = (
    Peer("fastapi", _ROWS, (Setting(2),)),
    Peer(
        "mosec",
        replace(_ROWS, path="/inference"),
        (Setting(2, 16), Setting(2, 32, 1), Setting(2), Setting(1, 32)),
    ),
    Peer("litserve", _ROWS, (Setting(2, 64, 1), Setting(2), Setting(1))),
    Peer(
        "bentoml",
        replace(_ROWS, scores=lambda answer: answer),
        (Setting(2, 1024, 1000), Setting(1, 1024, 1000), Setting(2)),
    ),
    Peer("mlserver", _V2, (Setting(2, 32, 1), Setting(1, 32, 1), Setting(1))),
    Peer("pytriton", _V2, (Setting(2, 64, 1), Setting(1, 64, 1), Setting(1, 64)), _DEBIAN),
    Peer("triton", _V2, (Setting(2, 64, 1), Setting(2, 64), Setting(1, 64)), _DEBIAN),
    Peer("ray", _ROWS, (Setting(2, 32), Setting(1, 32), Setting(2))),
)
"""In the order in which they are measured."""
