"""A run: what a load generator counted, what it cost the server, and how disturbed the machine was meanwhile.

Two things are compared only in pairs of runs, one right after the other. A disturbed pair is repeated.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from machine import Clock, Disturbance, process_seconds
from servers import Server


@dataclass(frozen=True)
class Figures:
    """What a load generator counted."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    errors: dict[str, int]

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Run:
    """One run against one server."""

    name: str
    server: str
    figures: Figures
    cpu_us_per_request: float
    disturbance: Disturbance


@dataclass(frozen=True)
class Pair:
    """Two runs, one right after the other: the one that is judged and the one that it is compared with."""

    ours: Run
    other: Run

    def disturbance(self) -> float:
        """Above 1 the pair is disturbed."""
        return max(self.ours.disturbance.degree(), self.other.disturbance.degree())


@dataclass
class Journal:
    """Every run, those of repeated pairs too, so that no error is lost with a run that is not shown."""

    runs: list[Run] = field(default_factory=list)
    max_repeats: int = 3
    """How often a disturbed pair is repeated."""

    def measure(self, name: str, server: Server, generate: Callable[[], Figures]) -> Run:
        """Runs `generate` against `server`."""
        clock, seconds = Clock.read(), process_seconds(server.pid)
        figures = generate()
        seconds = process_seconds(server.pid) - seconds
        disturbance = Disturbance.between(clock, Clock.read(), seconds)
        if figures.requests == 0:
            raise LoadError(f"{name} at {server.name}: no request was answered: {figures.errors}")
        run = Run(name, server.name, figures, seconds / figures.requests * 1e6, disturbance)
        self.runs.append(run)
        say(
            f"{name:22} {server.name:9} {figures.per_second:9,.0f}/s  p50 {figures.p50_ms:6.2f} ms"
            f"  p99 {figures.p99_ms:6.2f} ms  {run.cpu_us_per_request:5.1f} us  {disturbance}"
        )
        return run

    def pairs(self, count: int, ours: Callable[[], Run], other: Callable[[], Run]) -> list[Pair]:
        """So many pairs, each the least disturbed of at most `1 + max_repeats`."""
        return [_undisturbed(lambda: Pair(ours(), other()), self.max_repeats) for _ in range(count)]

    def errors(self) -> list[str]:
        """Every kind of error of every run, in words."""
        return [
            f"{run.name} at {run.server}: {count} requests with error `{kind}`"
            for run in self.runs
            for kind, count in run.figures.errors.items()
            if count
        ]


class LoadError(Exception):
    """The load cannot be made, or what it met cannot be measured."""


def say(line: str) -> None:
    """A line of progress."""
    print(f"{time.monotonic() - STARTED:6.1f} s  {line}", file=sys.stderr, flush=True)


def _undisturbed(measure: Callable[[], Pair], max_repeats: int) -> Pair:
    best = measure()
    for _ in range(max_repeats):
        if best.disturbance() <= 1:
            break
        say("disturbed: once more")
        best = min(best, measure(), key=Pair.disturbance)
    return best


STARTED = time.monotonic()
