"""Closed loop at full load, beside the ceiling."""

from dataclasses import dataclass

import bodies
import wrk
from plan import Plan, Programs
from runs import Figures, Journal, Pair, Run
from servers import Millrace, Server


@dataclass(frozen=True)
class Workload:
    """One kind of load."""

    key: str
    rows: int
    connections: int
    binary: bool = False
    """Rows and scores in the engine's layout, in place of JSON."""


WORKLOADS = (
    Workload("1row_c64", 1, 64),
    Workload("1row_c16", 1, 16),
    Workload("100row_c64", 100, 64),
    Workload("1000row_c64", 1000, 64),
    Workload("1000row_binary_c64", 1000, 64, binary=True),
)

CONFIG = "defaults = { max_queue_rows = 131072 }\n"
"""Twice what 64 requests of 1,000 rows take, for no instance's share of it is to be too small."""


def measure(journal: Journal, programs: Programs, plan: Plan) -> dict[Workload, list[Pair]]:
    """The pairs of every workload."""
    with programs.millrace(CONFIG) as ours:
        return {workload: compare(journal, programs, plan, ours, workload) for workload in WORKLOADS}


def compare(journal: Journal, programs: Programs, plan: Plan, ours: Server, workload: Workload) -> list[Pair]:
    """The pairs of a server and the ceiling."""
    with programs.ceiling(workload.rows) as ceiling:
        return beside(journal, programs, plan, (ours, ceiling), workload)


def beside(
    journal: Journal, programs: Programs, plan: Plan, servers: tuple[Server, Server], workload: Workload
) -> list[Pair]:
    """The pairs of two servers."""
    ours, other = servers
    binary = _binary(programs, ours, workload) if workload.binary and isinstance(ours, Millrace) else None

    def generate(server: Server, seconds: int) -> Figures:
        load = binary or wrk.rows(workload.rows, workload.connections, server.protocol)
        return Figures(**wrk.run(server, load, seconds))

    def run(server: Server) -> Run:
        return journal.measure(workload.key, server, lambda: generate(server, plan.closed_seconds))

    for server in servers:
        server.values([[1, 1]] * workload.rows)
        generate(server, plan.warm_up_seconds)
    return journal.pairs(plan.closed_pairs, lambda: run(ours), lambda: run(other))


def _binary(programs: Programs, ours: Millrace, workload: Workload) -> wrk.Load:
    model = ours.description()
    # The ceiling does not look at the path.
    path, file = f"{ours.protocol.path}/versions/{model['version']}", programs.folder / "bodies.bin"
    body = bodies.write(file, workload.rows, model["inputs"])
    ours.score_bytes(path, workload.rows, body)
    return wrk.bodies(workload.rows, workload.connections, file, len(body), path)
