"""Requests while the disk of the feedback log does not answer, beside requests while it does.

The log lies on a file system of its own, in a file, which is frozen for as long as a run lasts: whatever is written to it waits.
That takes root and a loop device. Feedback is told all the time, at a modest rate.
"""

import contextlib
import http.client
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import wrk
from plan import Plan, Programs
from runs import Figures, Journal, LoadError, Pair, Run
from servers import HOST, Millrace

CONNECTIONS = 16
TELLERS = 4
PAUSE_S = 0.05
"""Between two requests of a teller."""
EVENTS = 10
IMAGE_BYTES = 512 << 20
LOG_BYTES = 256 << 20
ANSWER_S = 2.0
"""How long a teller waits."""


@dataclass
class Stalled:
    """What was measured."""

    pairs: list[Pair] = field(default_factory=list)
    """A run on a frozen disk, each beside one on a disk that works."""
    told: dict[str, Counter[str]] = field(default_factory=dict)
    """What became of requests with feedback, by the kind of run: statuses, and those without an answer."""
    failures: list[str] = field(default_factory=list)


def measure(journal: Journal, programs: Programs, plan: Plan, folder: Path, keys: Path) -> Stalled:
    """The pairs, and whether the log is whole after them."""
    found = Stalled()
    with _disk(folder) as disk:
        log = disk / "log"
        config = f'receipt_keys = "{keys}"\nfeedback_dir = "{log}"\nmax_feedback_bytes = {LOG_BYTES}\n'
        with programs.millrace(config) as server, _tellers(server) as told:

            def run(name: str) -> Run:
                load = wrk.rows(1, CONNECTIONS, headers=("x-receipt: true",))
                generate = lambda: Figures(**wrk.run(server, load, plan.closed_seconds))  # noqa: E731
                if name == "stalled":
                    told.begin("freezing")
                    with _frozen(disk):
                        # What was written when it froze may still be acknowledged.
                        time.sleep(ANSWER_S)
                        told.begin(name)
                        figures = journal.measure(name, server, generate)
                        told.begin("after")
                    time.sleep(ANSWER_S)
                    return figures
                told.begin(name)
                return journal.measure(name, server, generate)

            run("warm-up")
            found.pairs = journal.pairs(plan.closed_pairs, lambda: run("stalled"), lambda: run("steady"))
            time.sleep(ANSWER_S)
            found.told = told.seen
        verified = subprocess.run(
            [programs.target / "release/millrace", "log", "verify", log], capture_output=True, text=True, check=False
        )
        if verified.returncode != 0:
            found.failures.append(f"the log is not whole: {verified.stdout}{verified.stderr}")
    if found.told["stalled"]["200"]:
        found.failures.append(f"feedback was acknowledged while nothing could be written: {found.told['stalled']}")
    if not found.told["steady"]["200"]:
        found.failures.append(f"no feedback was taken on a disk that works: {found.told['steady']}")
    return found


@contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    image, disk = folder / "disk", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    disk.mkdir()
    _run("mkfs.ext4", "-q", "-F", image)
    _run("mount", "-o", "loop", image, disk)
    try:
        yield disk
    finally:
        _run("umount", disk)


@contextmanager
def _frozen(disk: Path) -> Iterator[None]:
    _run("fsfreeze", "--freeze", disk)
    try:
        yield
    finally:
        _run("fsfreeze", "--unfreeze", disk)


def _run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise LoadError(f"{command[0]}: {done.stderr.strip()} (it takes root and a loop device)")


class _Told:
    """Counts what becomes of feedback."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.name = "warm-up"
        self.seen: dict[str, Counter[str]] = {}

    def begin(self, name: str) -> None:
        """From here on what is answered belongs to a run of this name."""
        with self.lock:
            self.name = name

    def add(self, outcome: str) -> None:
        """One request, which belongs to the run in which it was answered."""
        with self.lock:
            self.seen.setdefault(self.name, Counter())[outcome] += 1


@contextmanager
def _tellers(server: Millrace) -> Iterator[_Told]:
    told, stop = _Told(), threading.Event()

    def tell(number: int) -> None:
        request = 0
        while not stop.wait(PAUSE_S):
            request += 1
            events = [{"id": f"{number}-{request}-{i}", "record": {"user_id": i}} for i in range(EVENTS)]
            outcome = "none"
            connection = http.client.HTTPConnection(HOST, server.port, timeout=ANSWER_S)
            with contextlib.suppress(OSError, http.client.HTTPException):
                headers = {"content-type": "application/json"}
                connection.request("POST", "/api/feedback", json.dumps({"events": events}), headers)
                outcome = str(connection.getresponse().status)
            connection.close()
            told.add(outcome)

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(TELLERS)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join()
