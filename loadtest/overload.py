"""More than a server can do: a model that computes some two thousand rows a second is asked for multiples of that.

Open loop, beside what the same server reaches when nobody asks for more. Every answer is looked at by its status, and its
latency counts from the moment at which its request was due.
"""

import http.client
import json
import sqlite3
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from machine import Clock, Disturbance, process_seconds
from plan import Plan, Programs
from runs import LoadError, say
from servers import HOST, Millrace

FACTORS = (2, 5, 10)
"""Multiples of what the server can do."""


@dataclass(frozen=True)
class Answers:
    """The answers of one status: how many a second, and how late."""

    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class Step:
    """A rate of requests, and what became of them."""

    name: str
    offered_per_second: float
    answers: dict[int, Answers]
    """By status."""
    errors: dict[str, int]
    """What was no answer, by kind."""
    slowest_probe_ms: float
    """Of the questions to the management port meanwhile."""
    memory_mib: float
    """Of the server at the end."""
    server_cpu_seconds: float
    disturbance: Disturbance

    @property
    def goodput(self) -> float:
        """Answers with scores a second."""
        return self.answers[200].per_second if 200 in self.answers else 0.0

    @property
    def p99_ms(self) -> float:
        """Of the answers with scores."""
        return self.answers[200].p99_ms if 200 in self.answers else float("inf")


@dataclass(frozen=True)
class Round:
    """What the server can do, and what it does when more is asked of it."""

    peak: Step
    """With as many requests under way as keep it busy."""
    before: Step
    """At four fifths of that."""
    ladder: dict[int, Step]
    """By factor."""
    after: Step
    """At four fifths again, from two seconds after the last of them on."""


def measure(programs: Programs, plan: Plan) -> list[Round]:
    """So many rounds as the plan has."""
    config = f"defaults = {{ max_batch_rows = 64, request_timeout_ms = {DEADLINE_MS} }}"
    with programs.heavy().millrace(config) as server:
        load = Load(programs, server)
        load.closed("warm-up", plan.warm_up_seconds)
        return [_round(load, plan) for _ in range(plan.overload_rounds)]


def _round(load: "Load", plan: Plan) -> Round:
    seconds = plan.overload_seconds
    peak = load.closed("peak", seconds)
    within = 0.8 * peak.goodput
    before = load.open("0.8 x", within, seconds)
    ladder = {factor: load.open(f"{factor} x", factor * peak.goodput, seconds) for factor in FACTORS}
    after = load.open("0.8 x after", within, RECOVERY_S + seconds, skip=RECOVERY_S)
    return Round(peak, before, ladder, after)


class Load:
    """Makes the load, and looks after the server meanwhile."""

    def __init__(self, programs: Programs, server: Millrace) -> None:
        self._oha = programs.oha
        self._server = server
        self._answers = programs.folder / "answers.sqlite"

    def closed(self, name: str, seconds: float) -> Step:
        """As many requests under way as keep the server busy, and no more."""
        return self._run(name, 0.0, ["-z", f"{seconds}s", "-c", str(BUSY_CONNECTIONS)], seconds, 0.0)

    def open(self, name: str, rate: float, seconds: float, skip: float = 0.0) -> Step:
        """So many requests a second, whether or not the answers come. Those that were due in the first `skip` seconds
        are left out."""
        arguments = ["-z", f"{seconds}s", "-c", str(CONNECTIONS), "-q", str(round(rate)), "--latency-correction"]
        return self._run(name, rate, arguments, seconds, skip)

    def _run(self, name: str, rate: float, arguments: list[str], seconds: float, skip: float) -> Step:
        self._answers.unlink(missing_ok=True)
        command = [
            str(self._oha), "--no-tui", "--no-color", "--disable-compression", "--output-format", "json",
            "--wait-ongoing-requests-after-deadline", "-t", f"{REQUEST_TIMEOUT_S}s",
            "--db-url", str(self._answers), *arguments,
            "-m", "POST", "-T", "application/json", "-d", '{"input": [[1, 2]]}', self._server.url(),
        ]  # fmt: skip
        clock, cpu = Clock.read(), process_seconds(self._server.pid)
        with Probe(self._server.management_port) as probe:
            timeout = seconds + GRACE_S
            output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        if output.returncode != 0:
            raise LoadError(f"oha: {output.stderr}")
        cpu = process_seconds(self._server.pid) - cpu
        step = Step(
            name=name,
            offered_per_second=rate,
            answers=_answers(self._answers, skip, seconds - skip),
            errors=json.loads(output.stdout)["errorDistribution"],
            slowest_probe_ms=probe.slowest_ms,
            memory_mib=_memory_mib(self._server.pid),
            server_cpu_seconds=cpu,
            disturbance=Disturbance.between(clock, Clock.read(), cpu),
        )
        say(_line(step))
        return step


class Probe:
    """Asks the management port ten times a second whether the server is ready and what it counts."""

    def __init__(self, port: int) -> None:
        self.slowest_ms = 0.0
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Probe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(0.1):
            for path in ("/readyz", "/metrics"):
                start = time.monotonic()
                connection = http.client.HTTPConnection(HOST, self._port, timeout=REQUEST_TIMEOUT_S)
                connection.request("GET", path)
                status = connection.getresponse().status
                connection.close()
                took = (time.monotonic() - start) * 1e3 if status == 200 else float("inf")
                self.slowest_ms = max(self.slowest_ms, took)


def _answers(path: Path, skip: float, seconds: float) -> dict[int, Answers]:
    connection = sqlite3.connect(path)
    try:
        due = "coalesce(start_latency_correction, start)"
        query = f"select status, (end - {due}) * 1e3 from oha where {due} >= ? order by 2"
        by_status: dict[int, list[float]] = {}
        for status, late in connection.execute(query, (skip,)):
            by_status.setdefault(status, []).append(late)
    finally:
        connection.close()
    return {status: _latencies(late, seconds) for status, late in sorted(by_status.items())}


def _latencies(late: list[float], seconds: float) -> Answers:
    def quantile(share: float) -> float:
        return late[min(int(len(late) * share), len(late) - 1)]

    return Answers(len(late) / seconds, quantile(0.5), quantile(0.99), late[-1])


def _memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(resident.split()[1]) / 1024


def _line(step: Step) -> str:
    answers = "  ".join(
        f"{status}: {found.per_second:6,.0f}/s p50 {found.p50_ms:5.1f} p99 {found.p99_ms:5.1f} ms"
        for status, found in step.answers.items()
    )
    return (
        f"{step.name:11} {step.offered_per_second:6,.0f}/s  {answers}  probes {step.slowest_probe_ms:.0f} ms"
        f"  {step.memory_mib:.0f} MiB  {step.disturbance}"
    )


def summary(rounds: list[Round]) -> dict[str, float]:
    """Medians over the rounds; of memory, probes and what is no answer the worst."""
    figures = {"overload_peak_per_second": statistics.median(each.peak.goodput for each in rounds)}
    for factor in FACTORS:
        steps = [each.ladder[factor] for each in rounds]
        shares = [each.ladder[factor].goodput / each.peak.goodput for each in rounds]
        figures[f"overload_{factor}x_goodput"] = statistics.median(shares)
        figures[f"overload_{factor}x_p99_ms"] = statistics.median(step.p99_ms for step in steps)
        refused = [step.answers[503].p99_ms for step in steps if 503 in step.answers]
        figures[f"overload_{factor}x_refusal_p99_ms"] = statistics.median(refused or [0.0])
        figures[f"overload_{factor}x_probe_ms"] = max(step.slowest_probe_ms for step in steps)
    figures["overload_before_p99_ms"] = statistics.median(each.before.p99_ms for each in rounds)
    figures["overload_after_p99_ms"] = statistics.median(each.after.p99_ms for each in rounds)
    memory = [step.memory_mib for each in rounds for step in each.ladder.values()]
    figures["overload_memory_ratio"] = max(memory) / rounds[0].peak.memory_mib
    return figures


def table(rounds: list[Round]) -> list[str]:
    """A line for each rate of the round that was disturbed least."""
    if not rounds:
        return []
    calmest = min(rounds, key=lambda each: max(step.disturbance.degree() for step in _steps(each)))
    return ["overload, the calmest round:", *(_line(step) for step in _steps(calmest))]


def _steps(each: Round) -> list[Step]:
    return [each.peak, each.before, *each.ladder.values(), each.after]


def failures(rounds: list[Round]) -> list[str]:
    """Answers that no overload excuses, and requests without one."""
    steps = [step for each in rounds for step in _steps(each)]
    allowed = {200, 503, 504}
    wrong = [
        f"{step.name}: status {status}" for step in steps for status in step.answers if status not in allowed
    ]
    return wrong + [f"{step.name}: {count} times `{kind}`" for step in steps for kind, count in step.errors.items()]


DEADLINE_MS = 200
BUSY_CONNECTIONS = 192
"""Three full batches: one runs, one waits, and the third is on its way."""
CONNECTIONS = 1_000
RECOVERY_S = 2
REQUEST_TIMEOUT_S = 5
GRACE_S = 60
