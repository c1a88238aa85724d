"""What a model's neighbours on the same server cost it, and what the size of its own table does.

Every pair is one load, first beside the neighbours and then without them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import machine
import openloop
import repository
import wrk
from encoding import newest
from plan import Plan, Programs
from protocol import MODEL, OURS
from runs import Figures, Journal, Pair, Run
from servers import Millrace, Server, ServerError

HEAVY = "heavy"
MIN_ROWS, MAX_ROWS = repository.TABLE_ROWS[0], repository.TABLE_ROWS[-1]
LARGEST = repository.table_model(MAX_ROWS)
CONFIG = f"[models.{LARGEST}]\nversions = {{ latest = 1 }}\n"
"""Every second promotion loads a version."""

IDLE = (10, 100)
"""How many models are loaded in all, of which one is asked."""
CONNECTIONS = 64
HEAVY_CONNECTIONS = 4
TABLE_ROW_BYTES = 4 * 33
"""The embedding's numbers and the weight of the wide part."""
LIGHT_RATE = 5000
"""Requests a second of the model beside the heavy one."""


@dataclass
class Neighbours:
    """What was measured."""

    idle: dict[int, list[Pair]] = field(default_factory=dict)
    """By the number of models: beside those that nobody asks, and alone."""
    tables: dict[int, list[Pair]] = field(default_factory=dict)
    """By the rows of the table: that one, and the smallest."""
    heavy: list[Pair] = field(default_factory=list)
    """Beside a heavy model at full load, and while nobody asks that."""
    large: list[Pair] = field(default_factory=list)
    """While a large model is swapped, and while it is not."""
    large_loads: int = 0
    """Versions of it that were loaded meanwhile."""
    large_promotions: int = 0
    large_memory: float = 0.0
    """What the server ever had resident at its most, as a share of what both versions' tables take."""
    failures: list[str] = field(default_factory=list)

    def groups(self) -> list[list[Pair]]:
        """All pairs, those of each kind together."""
        return [*self.idle.values(), *self.tables.values(), self.large, self.heavy]


def measure(journal: Journal, programs: Programs, plan: Plan) -> Neighbours:
    """Each kind of neighbour in turn."""
    result = Neighbours()
    for models in IDLE:
        result.idle[models] = _idle(journal, programs, plan, models)
    with programs.tables().millrace(CONFIG) as server:
        for rows in repository.TABLE_ROWS[1:]:
            result.tables[rows] = _table(journal, plan, server, rows)
        _large(journal, plan, server, result)
    result.heavy = _heavy(journal, programs, plan)
    return result


def _idle(journal: Journal, programs: Programs, plan: Plan, models: int) -> list[Pair]:
    """So many models on one server, of which one is asked, beside a server that has no other."""
    version = newest(programs.models)
    names = [MODEL, *(f"idle_{number}" for number in range(1, models))]
    folder = repository.gather(programs.folder / "many-models", dict.fromkeys(names, version))
    with replace(programs, models=folder).millrace("") as many, programs.millrace("") as alone:
        return _pairs(journal, plan, f"of_{models}_models", many, alone)


def _table(journal: Journal, plan: Plan, server: Server, rows: int) -> list[Pair]:
    """A model with a table of so many rows, beside the one with the smallest; ids are drawn from all of the table."""

    def asked(rows: int) -> Server:
        path = f"/api/predict/{repository.table_model(rows)}"
        return replace(server, protocol=replace(OURS, path=path, users=rows))

    return _pairs(journal, plan, f"table_{rows}", asked(rows), asked(MIN_ROWS))


def _large(journal: Journal, plan: Plan, server: Millrace, result: Neighbours) -> None:
    """The smallest table's model at full load, while the largest is swapped and while it is not."""
    small = replace(server, protocol=replace(OURS, path=f"/api/predict/{repository.table_model(MIN_ROWS)}"))
    load = wrk.rows(1, CONNECTIONS, small.protocol)

    def swap(is_running: Callable[[], bool]) -> None:
        while is_running():
            try:
                server.promote(1 + result.large_promotions % 2, LARGEST)
            except (ServerError, OSError) as error:
                result.failures.append(f"swap of {LARGEST}: {error}")
                return
            result.large_promotions += 1

    def run(name: str, work: wrk.Work) -> Run:
        figures = lambda: Figures(**wrk.run(small, load, plan.large_swap_seconds, work))  # noqa: E731
        return journal.measure(name, small, figures)

    loads = server.loads()
    result.large = journal.pairs(
        plan.swap_pairs, lambda: run("large_swapped", swap), lambda: run("large_steady", lambda _: None)
    )
    result.large_loads = server.loads() - loads
    if result.large_loads == 0:
        result.failures.append(f"no version of {LARGEST} was loaded while it should be swapped")
    result.large_memory = machine.peak_memory(server.pid) / (2 * MAX_ROWS * TABLE_ROW_BYTES)


def _heavy(journal: Journal, programs: Programs, plan: Plan) -> list[Pair]:
    """The light model at a fixed rate, beside the heavy one at full load and beside it at rest."""
    versions = {MODEL: newest(programs.models), HEAVY: newest(programs.heavy().models)}
    folder = repository.gather(programs.folder / "mixed-models", versions)
    with replace(programs, models=folder).millrace("") as server:
        heavy = replace(server, protocol=replace(OURS, path=f"/api/predict/{HEAVY}"))

        def run(name: str) -> Run:
            return journal.measure(
                name, server, lambda: openloop.load(programs, server, LIGHT_RATE, plan.closed_seconds)
            )

        def beside() -> Run:
            heavy.values([[1, 1]])
            with wrk.beside(heavy, wrk.rows(1, HEAVY_CONNECTIONS, heavy.protocol)):
                return run("beside_heavy")

        run("warm-up")
        return journal.pairs(plan.closed_pairs, beside, lambda: run("heavy_at_rest"))


def _pairs(journal: Journal, plan: Plan, name: str, ours: Server, other: Server) -> list[Pair]:
    def run(server: Server, name: str) -> Run:
        load = wrk.rows(1, CONNECTIONS, server.protocol)
        return journal.measure(name, server, lambda: Figures(**wrk.run(server, load, plan.closed_seconds)))

    for server in (ours, other):
        wrk.run(server, wrk.rows(1, CONNECTIONS, server.protocol), plan.warm_up_seconds)
    return journal.pairs(plan.closed_pairs, lambda: run(ours, name), lambda: run(other, "without"))
