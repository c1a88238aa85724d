"""A shop's log, played as its users' visits: what was shown is asked for in order, and what was clicked is told a bit later."""

import csv
import heapq
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protocol import MODEL
from servers import HOST

HOUR_S = 3600
DAY_S = 24 * HOUR_S
LABEL_DELAY_S = (0.5, 3.0)
"""How long after an answer its labels are told, at least and at most: each visit's by chance, so they come out of order."""
SENDERS = 2
MAX_EVENTS = 500
"""Of a request with labels."""
TELL_EVERY_S = 0.1
RETRIES = 20
"""How often labels are told again that the server had no room for."""
TIMEOUT_S = 10


@dataclass(frozen=True)
class Row:
    """A row of the log: an item that was shown to a user, and what became of it."""

    user: int
    item: int
    text: str
    """When, as the log has it."""
    at: int
    """When, in seconds since 1970."""
    clicked: int


@dataclass(frozen=True)
class Visit:
    """What one user was shown within an hour."""

    rows: list[Row]

    @property
    def at(self) -> int:
        """When it began, in seconds since 1970."""
        return self.rows[0].at


def read(path: Path) -> list[Row]:
    """The rows of a log."""
    with path.open(encoding="ascii", newline="") as file:
        return [_row(line) for line in csv.DictReader(file)]


def visits(rows: list[Row]) -> Iterator[Visit]:
    """The visits of a log in the order in which they began."""
    start = 0
    while start < len(rows):
        hour, end = rows[start].at // HOUR_S, start
        by_user: dict[int, list[Row]] = {}
        while end < len(rows) and rows[end].at // HOUR_S == hour:
            by_user.setdefault(rows[end].user, []).append(rows[end])
            end += 1
        yield from sorted((Visit(shown) for shown in by_user.values()), key=lambda visit: visit.at)
        start = end


@dataclass
class Traffic:
    """Plays visits to a server until it is stopped or they end."""

    port: int
    visits: Iterator[Visit]
    day_s: float
    """How long a day of the log takes."""
    on_day: Callable[[int], None] = lambda _: None
    """Is told when a day of the log begins, the first one that is played among them, by its number since 1970."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rows and requests that were answered, events that were told, and errors by kind."""
    played: int = 0
    """The moment of the log that was reached, in seconds since 1970."""
    is_over: bool = False
    """Whether the log ended before somebody stopped it."""

    def __post_init__(self) -> None:
        """Has no threads yet."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._draw = random.Random(1)
        self._labels: list[tuple[float, int, list[dict[str, Any]]]] = []
        self._threads: list[threading.Thread] = []
        self._senders = SENDERS
        self._origin: tuple[float, int] | None = None

    def __enter__(self) -> "Traffic":
        """Starts."""
        for work in [self._send] * SENDERS + [self._tell]:
            self._threads.append(threading.Thread(target=work, daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops, and tells the labels that are still to come."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def errors(self) -> dict[str, int]:
        """Requests that were not answered as they must be, by kind."""
        with self._lock:
            return {kind: count for kind, count in self.counts.items() if kind.startswith("error")}

    def _send(self) -> None:
        connection = _Connection(self.port)
        while not self._stop.is_set():
            with self._lock:
                visit = next(self.visits, None)
                if visit is None:
                    self.is_over = True
                    break
                self._origin = self._origin or (time.monotonic(), visit.at)
                due = self._origin[0] + (visit.at - self._origin[1]) * self.day_s / DAY_S
            if (early := due - time.monotonic()) > 0 and self._stop.wait(early):
                # It was not sent, and the log has plenty more.
                break
            self._ask(connection, visit)
        with self._lock:
            self._senders -= 1
        connection.close()

    def _ask(self, connection: "_Connection", visit: Visit) -> None:
        user = visit.rows[0].user
        body = json.dumps({"input": [[row.user, row.item] for row in visit.rows]})
        headers = {"x-receipt": "true", "x-sticky-key": str(user)}
        status, receipt, _ = connection.post(f"/api/predict/{MODEL}", body, headers)
        with self._lock:
            if status != 200 or receipt is None:
                self.counts[f"error: a prediction was answered {status or 'never'}"] += 1
                return
            self.counts["requests"] += 1
            self.counts["rows"] += len(visit.rows)
            if visit.at // DAY_S > self.played // DAY_S:
                self.on_day(visit.at // DAY_S)
            self.played = max(self.played, visit.at)
            events = [
                {"receipt": receipt, "row": place, "label": row.clicked, "record": _record(row)}
                for place, row in enumerate(visit.rows)
            ]
            due = time.monotonic() + self._draw.uniform(*LABEL_DELAY_S)
            heapq.heappush(self._labels, (due, self.counts["requests"], events))

    def _tell(self) -> None:
        connection = _Connection(self.port)
        while True:
            with self._lock:
                is_last = self._senders == 0
                events: list[dict[str, Any]] = []
                while self._labels and (is_last or self._labels[0][0] <= time.monotonic()):
                    if len(events) + len(self._labels[0][2]) > MAX_EVENTS:
                        break
                    events += heapq.heappop(self._labels)[2]
            if events:
                self._tell_all(connection, events)
            elif is_last:
                break
            else:
                time.sleep(TELL_EVERY_S)
        connection.close()

    def _tell_all(self, connection: "_Connection", events: list[dict[str, Any]]) -> None:
        body = json.dumps({"events": events})
        for _ in range(RETRIES):
            status, _, answer = connection.post("/api/feedback", body, {})
            # It says so when it has no room, and nothing is in the log twice.
            if status != 503:
                break
            time.sleep(TELL_EVERY_S)
        with self._lock:
            if status == 200:
                self.counts["labels"] += json.loads(answer)["accepted"]
            else:
                self.counts[f"error: labels were answered {status or 'never'}"] += 1


class _Connection:
    """A connection that is kept, and made again where it has failed."""

    def __init__(self, port: int) -> None:
        self._inner = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)

    def post(self, path: str, body: str, headers: dict[str, str]) -> tuple[int, str | None, bytes]:
        """The status, 0 where there was no answer, the receipt and the body."""
        try:
            self._inner.request("POST", path, body, {"content-type": "application/json", **headers})
            answer = self._inner.getresponse()
            return answer.status, answer.getheader("x-receipt"), answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return 0, None, b""

    def close(self) -> None:
        """Closes it; the next request makes another."""
        with suppress(OSError):
            self._inner.close()


def _row(line: dict[str, str]) -> Row:
    at = datetime.fromisoformat(line["event_time"]).replace(tzinfo=UTC)
    user, item, clicked = int(line["user_id"]), int(line["item_id"]), int(line["clicked"])
    return Row(user, item, line["event_time"], int(at.timestamp()), clicked)


def _record(row: Row) -> dict[str, Any]:
    return {"user_id": row.user, "item_id": row.item, "event_time": row.text}
