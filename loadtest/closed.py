"""Closed loop at full load, beside the ceiling."""

from dataclasses import dataclass

import wrk
from plan import Plan, Programs
from runs import Figures, Journal, Pair, Run
from servers import Server


@dataclass(frozen=True)
class Workload:
    """One kind of load."""

    key: str
    rows: int
    connections: int


WORKLOADS = (Workload("1row_c64", 1, 64), Workload("1row_c16", 1, 16), Workload("100row_c64", 100, 64))


def measure(journal: Journal, programs: Programs, plan: Plan) -> dict[str, list[Pair]]:
    """The pairs of every workload, by its key."""
    with programs.millrace("") as ours:
        return {workload.key: compare(journal, programs, plan, ours, workload) for workload in WORKLOADS}


def compare(journal: Journal, programs: Programs, plan: Plan, ours: Server, workload: Workload) -> list[Pair]:
    """The pairs of a server and the ceiling."""

    def generate(server: Server, seconds: int) -> Figures:
        load = wrk.rows(workload.rows, workload.connections, server.protocol)
        return Figures(**wrk.run(server, load, seconds))

    def run(server: Server) -> Run:
        return journal.measure(workload.key, server, lambda: generate(server, plan.closed_seconds))

    with programs.ceiling(workload.rows) as ceiling:
        for server in (ours, ceiling):
            server.values([[1, 1]] * workload.rows)
            generate(server, plan.warm_up_seconds)
        return journal.pairs(plan.closed_pairs, lambda: run(ours), lambda: run(ceiling))
