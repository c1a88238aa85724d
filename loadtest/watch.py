"""What a server says of itself while it runs: how good each version is, which of them answer, and what has happened."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import servers
from protocol import MODEL
from servers import Millrace, ServerError

EVERY_S = 0.25
SETTLED_WITHIN_S = 10
ROLLOUT = f"/models/{MODEL}/rollout"
STATES = {
    "millrace_alert_firing": ("alert", "alert over"),
    "millrace_retrain_running": ("retrain started", "retrain ended"),
}
"""What is 1 while something lasts, and what it is called when it begins and when it ends."""


@dataclass(frozen=True)
class Sample:
    """One look."""

    seconds: float
    """Since the run began."""
    accuracy: dict[int, float]
    """Of the mature window of each version that has labels there."""
    labels: dict[int, int]
    """So many."""
    stable: int
    """The version that answers whoever names none, but for the candidate's share."""
    candidate: int
    """The version that is tried, or 0."""
    share: float
    """Of those requests, what the candidate answers."""
    alert: bool
    """Whether the server says that the model is not good enough."""


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    seconds: float
    """Since the run began."""
    kind: str
    version: int = 0
    by: str = ""
    reason: str = ""


@dataclass
class Timeline:
    """A run as it was seen."""

    name: str
    samples: list[Sample] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    days: list[tuple[int, float]] = field(default_factory=list)
    """When each day of the log began, which has this number since 1970."""

    def find(self, kind: str, version: int = 0) -> Event | None:
        """The first event of this kind, of this version where one is named."""
        found = (event for event in self.events if event.kind == kind and version in (0, event.version))
        return next(found, None)

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return asdict(self)

    @staticmethod
    def of_json(found: dict[str, Any]) -> "Timeline":
        """The same from a file, in which versions have become texts."""
        samples = [
            Sample(**one | {"accuracy": _by_version(one["accuracy"]), "labels": _by_version(one["labels"])})
            for one in found["samples"]
        ]
        events = [Event(**one) for one in found["events"]]
        return Timeline(found["name"], samples, events, [(day, seconds) for day, seconds in found["days"]])


class Watch:
    """Looks at a server, until it is stopped, from a thread of its own."""

    def __init__(self, server: Millrace, journal: Path, timeline: Timeline) -> None:
        """Reads what is written to `journal` from now on."""
        self.timeline = timeline
        self.failure: BaseException | None = None
        self._server = server
        self._journal = journal
        self._read = journal.stat().st_size if journal.exists() else 0
        self._start, self._start_time = time.monotonic(), time.time()
        self._states = dict.fromkeys(STATES, False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        """Starts, once the server knows which version is stable: it looks for that twice a second."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while (found := servers.call(self._server.management_port, "GET", ROLLOUT)).status != 200:
            if time.monotonic() > deadline:
                raise ServerError(f"GET {ROLLOUT}: status {found.status}: {found.body[:200]!r}")
            time.sleep(EVERY_S)
        self._start, self._start_time = time.monotonic(), time.time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops."""
        self._stop.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """How long it has been looking."""
        return time.monotonic() - self._start

    @property
    def now(self) -> Sample:
        """The last look."""
        if self.failure:
            raise ServerError(f"the server cannot be watched: {self.failure}")
        return self.timeline.samples[-1] if self.timeline.samples else Sample(0, {}, {}, 0, 0, 0, False)

    def note(self, kind: str, version: int = 0, reason: str = "") -> None:
        """Something that others saw happen just now."""
        self.timeline.events.append(Event(self.seconds, kind, version, "", reason))

    def _run(self) -> None:
        try:
            while not self._stop.wait(EVERY_S):
                self._look()
        except (OSError, ValueError, KeyError, ServerError) as failure:
            self.failure = failure

    def _look(self) -> None:
        seconds = self.seconds
        series = list(_series(_get(self._server, "/metrics")))
        rollout = json.loads(_get(self._server, ROLLOUT))

        def by_version(name: str, **labels: str) -> dict[int, float]:
            wanted = {"model": MODEL, "window": "mature", **labels}.items()
            return {
                int(found["version"]): value for known, found, value in series if known == name and wanted <= found.items()
            }

        def is_set(name: str) -> bool:
            return any(known == name and found["model"] == MODEL and value > 0 for known, found, value in series)

        accuracy = by_version("millrace_live_quality", measure="accuracy")
        labels = {version: int(count) for version, count in by_version("millrace_live_rows", of="labelled").items()}
        candidate = rollout["candidate"] or {"version": 0, "share": 0.0}
        self.timeline.samples.append(
            Sample(
                seconds,
                {version: value for version, value in accuracy.items() if labels.get(version)},
                labels,
                rollout["stable"] or 0,
                candidate["version"],
                candidate["share"],
                is_set("millrace_alert_firing"),
            )
        )
        for name, (begins, ends) in STATES.items():
            if (holds := is_set(name)) != self._states[name]:
                self._states[name] = holds
                self.note(begins if holds else ends)
        self._read_journal()

    def _read_journal(self) -> None:
        if not self._journal.exists():
            return
        with self._journal.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        # The last line may not be whole yet.
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            told = json.loads(line)
            at = datetime.fromisoformat(told["time"]).timestamp() - self._start_time
            event = Event(at, told["event"], told["version"], told["by"], told["reason"])
            self.timeline.events.append(event)


def _by_version(values: dict[str, Any]) -> dict[int, Any]:
    return {int(version): value for version, value in values.items()}


def _get(server: Millrace, path: str) -> str:
    answer = servers.call(server.management_port, "GET", path)
    if answer.status != 200:
        raise ServerError(f"GET {path}: status {answer.status}: {answer.body[:200]!r}")
    return answer.body.decode()


def _series(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """The metrics with labels: names, labels and values. No label of ours has a comma or a quote in it."""
    for line in text.splitlines():
        name, has_labels, rest = line.partition("{")
        if has_labels and not line.startswith("#"):
            labels, _, value = rest.rpartition("} ")
            pairs = (pair.partition("=") for pair in labels.split(","))
            yield name, {key: quoted.strip('"') for key, _, quoted in pairs}, float(value)
