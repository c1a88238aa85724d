"""Closed loop at full load, beside the ceiling."""

from dataclasses import dataclass

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


WORKLOADS = (Workload("1row_c64", 1, 64), Workload("1row_c16", 1, 16), Workload("100row_c64", 100, 64))


def measure(journal: Journal, programs: Programs, plan: Plan) -> dict[str, list[Pair]]:
    """The pairs of every workload, by its key."""
    with programs.millrace("") as ours:
        return {workload.key: _compare(journal, programs, plan, ours, workload) for workload in WORKLOADS}


def _compare(
    journal: Journal, programs: Programs, plan: Plan, ours: Millrace, workload: Workload
) -> list[Pair]:
    load = wrk.rows(workload.rows, workload.connections)

    def run(server: Server) -> Run:
        return journal.measure(
            workload.key, server, lambda: Figures(**wrk.run(server, load, plan.closed_seconds))
        )

    with programs.ceiling(workload.rows) as ceiling:
        for server in (ours, ceiling):
            server.score([[1, 1]] * workload.rows)
            wrk.run(server, load, plan.warm_up_seconds)
        return journal.pairs(plan.closed_pairs, lambda: run(ours), lambda: run(ceiling))
