"""Open loop, beside the ceiling: so many requests a second by oha, whether or not the answers come.

Latencies count from the moment at which oha set a request free, which may be before a connection has time for
it, so a server that falls behind cannot hide it. Requests come in bursts of those of one millisecond, for
that is what oha's timer can do.
"""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import wrk
from plan import OPEN_RATE, Plan, Programs
from protocol import Protocol
from runs import Figures, Journal, LoadError, Pair, Run
from servers import Server


def measure(journal: Journal, programs: Programs, plan: Plan) -> dict[str, list[Pair]]:
    """Pairs at the rate that the plan names, and at a share of what ours reaches."""
    with programs.millrace("") as ours:
        peak = wrk.run(ours, wrk.rows(1, CONNECTIONS), plan.closed_seconds)
        rates = {"open_10k": OPEN_RATE, "open_of_peak": round(SHARE_OF_PEAK * peak["requests"] / peak["seconds"])}
        return {name: compare(journal, programs, plan, ours, rate, name) for name, rate in rates.items()}


def compare(
    journal: Journal, programs: Programs, plan: Plan, ours: Server, rate: int, name: str
) -> list[Pair]:
    """The pairs of a server and the ceiling at so many requests a second."""
    with programs.ceiling(1) as ceiling:
        return beside(journal, programs, plan, (ours, ceiling), rate, name)


def beside(
    journal: Journal, programs: Programs, plan: Plan, servers: tuple[Server, Server], rate: int, name: str
) -> list[Pair]:
    """The pairs of two servers at so many requests a second."""
    ours, other = servers

    def run(server: Server) -> Run:
        figures = lambda: load(programs, server, rate, plan.open_seconds)  # noqa: E731
        return journal.measure(name, server, figures)

    for server in servers:
        load(programs, server, rate, plan.warm_up_seconds)
    return journal.pairs(plan.open_pairs, lambda: run(ours), lambda: run(other))


def load(programs: Programs, server: Server, rate: int, seconds: int) -> Figures:
    """Asks the server for so many rows a second, one a request."""
    bodies = programs.folder / f"bodies-{server.name}.txt"
    _write_bodies(bodies, server.protocol)
    command = [
        str(programs.oha),
        "--no-tui", "--no-color", "--disable-compression", "--output-format", "json",
        "--latency-correction", "--wait-ongoing-requests-after-deadline",
        "-q", str(rate), "-z", f"{seconds}s", "-c", str(CONNECTIONS), "-t", f"{REQUEST_TIMEOUT_S}s",
        "-m", "POST", "-T", "application/json", "-Z", str(bodies),
        server.url(),
    ]  # fmt: skip
    timeout = seconds + GRACE_S
    output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    if output.returncode != 0:
        raise LoadError(f"oha: {output.stderr}")
    return _figures(json.loads(output.stdout))


def _figures(report: dict[str, Any]) -> Figures:
    statuses = report["statusCodeDistribution"]
    errors = dict(report["errorDistribution"])
    errors |= {f"status {status}": count for status, count in statuses.items() if status[0] != "2"}
    latency, summary = report["latencyPercentiles"], report["summary"]
    return Figures(
        requests=sum(statuses.values()),
        seconds=summary["total"],
        p50_ms=latency["p50"] * 1e3,
        p99_ms=latency["p99"] * 1e3,
        p999_ms=latency["p99.9"] * 1e3,
        max_ms=summary["slowest"] * 1e3,
        errors=errors,
    )


def _write_bodies(path: Path, protocol: Protocol) -> None:
    draw = random.Random(1)
    rows = ([draw.randint(1, 1000), protocol.first_item - 1 + draw.randint(1, 800)] for _ in range(BODIES))
    path.write_text("".join(protocol.request([row]) + "\n" for row in rows), encoding="ascii")


SHARE_OF_PEAK = 0.6
CONNECTIONS = 64
BODIES = 4096
REQUEST_TIMEOUT_S = 5
GRACE_S = 30
