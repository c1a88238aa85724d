"""A server that is killed again and again while it takes feedback: `make crash-check`, or see README.md beside this file.

Clients tell events without a pause and remember each that was answered 200. The server gets SIGKILL at a random moment and
is started again on the same log; what was not answered is told again, under the same names. Segments are small and exported
at once, so that kills hit their creation, their sealing, their export and their removal too. In the end every event that
was acknowledged must be in the exported tables exactly once. Progress goes to standard error, and the last line is one JSON
object. The status is 1 where something is not as it should be.
"""

import argparse
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet

import command
import machine
import servers
from machine import ROOT
from runs import LoadError, say
from servers import HOST

KILLS = 1000
CLIENTS = 4
EVENTS = 10
"""In a request."""
LATEST_S = 0.15
"""A server is killed at most so long after it has answered for the first time."""
CONFIG = """
listen = "{host}:{port}"
management_listen = "{host}:{management_port}"
models_dir = "{folder}/models"
feedback_dir = "{folder}/feedback"
# A segment is a quarter of it; what is exported goes once it takes half of it.
max_feedback_bytes = 6000000
feedback_remembered_events = 20000
feedback_export = {{ dir = "{folder}/exported", interval_ms = {interval_ms} }}
"""
EXPORT_MS = 50


@dataclass
class Results:
    """What was found."""

    kills: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    """Requests that were under way when the server was killed."""
    kept: int = 0
    """Of those that were told again, events that were in the log already."""
    logged: int = 0
    lost: int = 0
    duplicated: int = 0
    tables: int = 0
    start_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def expect(self, name: str, found: int, expected: int) -> None:
        """Notes that something is not what it must be."""
        if found != expected:
            self.failures.append(f"{name}: {found}, and must be {expected}")

    def summary(self) -> dict[str, object]:
        """The figures, for programs."""
        starts = sorted(self.start_s)
        return {
            "kills": self.kills,
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "logged": self.logged,
            "unanswered_requests": self.unanswered,
            "kept_unanswered": self.kept,
            "tables": self.tables,
            "start_ms_median": round(1e3 * starts[len(starts) // 2], 1),
            "start_ms_max": round(1e3 * starts[-1], 1),
            "machine": machine.description(),
            "passed": not self.failures,
        }

    def table(self) -> str:
        """The figures, for people."""
        return "\n".join(f"{name:20} {value}" for name, value in self.summary().items() if name != "machine")


class Client:
    """Tells events of its own names, and keeps what it does not know the fate of."""

    def __init__(self, number: int) -> None:
        """Nothing told so far."""
        self._number = number
        self.requests = 0
        """Those that were acknowledged."""
        self._pending: str | None = None
        """The body that was not answered."""
        self.unanswered = 0
        self.kept = 0
        self.faults: list[str] = []

    def names(self, request: int) -> list[str]:
        """Of a request's events."""
        return [f"{self._number}-{request}-{event}" for event in range(EVENTS)]

    def tell(self, port: int, answered: Callable[[], None], over: threading.Event) -> None:
        """Tells one request after the other until the server is gone, or until it is enough."""
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        try:
            while not over.is_set():
                is_again = self._pending is not None
                self._pending = self._pending or self._body()
                connection.request("POST", "/api/feedback", self._pending, {"content-type": "application/json"})
                answer = connection.getresponse()
                taken = json.loads(answer.read())
                if answer.status == 503:
                    time.sleep(0.005)
                    continue
                if answer.status != 200 or taken["accepted"] + taken["duplicates"] != EVENTS:
                    self.faults.append(f"status {answer.status}: {taken}")
                    return
                if not is_again and taken["duplicates"]:
                    self.faults.append(f"new events were taken for old ones: {taken}")
                self.kept += taken["duplicates"]
                self.requests, self._pending = self.requests + 1, None
                answered()
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            self.unanswered += self._pending is not None
        finally:
            connection.close()

    def _body(self) -> str:
        record = {"user_id": self._number, "item_id": self.requests, "event_time": "2026-11-27T08:00:00Z", "clicked": 1}
        return json.dumps({"events": [{"id": name, "record": record} for name in self.names(self.requests)]})


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=KILLS, help="how many, to try it")
    arguments = parser.parse_args()
    return command.run(lambda: _check(arguments.kills))


def _check(kills: int) -> Results:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    program, results, draw = target / "release/millrace", Results(), random.Random(1)
    clients = [Client(number) for number in range(CLIENTS)]
    # Not in the folder of temporary files, which may lie in memory.
    (target / "loadtest").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target / "loadtest") as name:
        folder = Path(name)
        (folder / "models").mkdir()
        for life in range(kills + 1):
            # The last one is not killed.
            _live(program, folder, clients, draw.uniform(0, LATEST_S) if life < kills else None, results)
            if results.kills % 100 == 0 and results.kills:
                say(f"{results.kills} kills, {EVENTS * sum(client.requests for client in clients):,} events acknowledged")
        _judge(program, folder, clients, results)
    return results


def _live(program: Path, folder: Path, clients: list[Client], until_s: float | None, results: Results) -> None:
    """A server from its start to its end, with clients that tell it what happens."""
    port, config, log = servers.free_port(), folder / "server.toml", folder / "server.log"
    management_port = servers.free_port()
    text = CONFIG.format(
        host=HOST, port=port, management_port=management_port, folder=folder, interval_ms=EXPORT_MS
    )
    config.write_text(text, encoding="utf-8")
    begun, answered, over = time.monotonic(), threading.Event(), threading.Event()
    with log.open("wb") as output:
        server = subprocess.Popen([program, "serve", "--config", config], stdout=output, stderr=output)
    try:
        _wait(server, port, log)
        results.start_s.append(time.monotonic() - begun)
        # While nobody tells anything, for what is just being written may seem torn.
        _verify(program, folder, results)
        threads = [threading.Thread(target=client.tell, args=(port, answered.set, over)) for client in clients]
        for thread in threads:
            thread.start()
        if not answered.wait(WAIT_S):
            raise LoadError(f"a server took no feedback: {log.read_text(encoding='utf-8')[-2000:]}")
        if until_s is None:
            # So that what was not answered is told once more.
            time.sleep(1)
            over.set()
        else:
            time.sleep(until_s)
            server.send_signal(signal.SIGKILL)
            server.wait()
            results.kills += 1
        for thread in threads:
            thread.join()
        if until_s is None:
            time.sleep(10 * EXPORT_MS / 1e3)
            server.send_signal(signal.SIGTERM)
            results.expect("the status of the last server", server.wait(WAIT_S), 0)
    finally:
        server.kill()
        server.wait()
    said = log.read_text(encoding="utf-8")
    for fault in FAULTS.findall(said):
        results.failures.append(f"after {results.kills} kills: {fault}")


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Waits until the server listens."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            servers.call(port, "GET", "/")
            return
        except OSError:
            time.sleep(0.005)
    raise LoadError(f"a server did not start: {log.read_text(encoding='utf-8')[-2000:]}")


def _verify(program: Path, folder: Path, results: Results) -> None:
    """Has the program itself look at the log."""
    arguments: list[str | Path] = [program, "log", "verify", folder / "feedback"]
    verified = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if verified.returncode != 0:
        results.failures.append(f"after {results.kills} kills: {verified.stdout}{verified.stderr}")


def _judge(program: Path, folder: Path, clients: list[Client], results: Results) -> None:
    """Holds what the tables and the log have against what was acknowledged."""
    _verify(program, folder, results)
    rest = folder / "rest.parquet"
    subprocess.run([program, "log", "export", folder / "feedback", "--to", rest], check=True, capture_output=True)
    left = _names(rest)
    tables = sorted((folder / "exported").glob("*.parquet"))
    times = Counter(name for table in tables for name in _names(table))
    results.expect("events of the log that are in no table", sum(name not in times for name in left), 0)
    results.expect("events that are twice in the log", len(left) - len(set(left)), 0)
    acknowledged = [name for client in clients for request in range(client.requests) for name in client.names(request)]
    results.tables, results.logged, results.acknowledged = len(tables), len(times), len(acknowledged)
    results.lost = sum(name not in times for name in acknowledged)
    results.duplicated = sum(count > 1 for count in times.values())
    results.unanswered = sum(client.unanswered for client in clients)
    results.kept = sum(client.kept for client in clients)
    results.failures += [fault for client in clients for fault in client.faults]
    for name in ("lost", "duplicated"):
        results.expect(name, getattr(results, name), 0)
    # Those that the last request of a client may have left are told again by the next one, and there is none.
    results.expect("events that nobody told", max(0, len(times) - len(acknowledged) - CLIENTS * EVENTS), 0)


def _names(table: Path) -> list[str]:
    """Of the events in it."""
    names: list[str] = pyarrow.parquet.read_table(table, columns=["millrace_event"])["millrace_event"].to_pylist()
    return names


FAULTS = re.compile(r"^.*(?: ERROR | WARN ).*$", re.MULTILINE)
WAIT_S = 30


if __name__ == "__main__":
    sys.exit(main())
