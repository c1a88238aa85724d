"""Ours and its peers, each beside the ceiling under the same loads; a peer first scores some rows as ours did."""

import random
import statistics
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import closed
import encoding
import openloop
import wrk
from closed import Workload
from encoding import Encoding
from peer import InstallError, Peer, Setting
from plan import OPEN_RATE, Plan, Programs
from runs import Figures, Journal, LoadError, Pair, say
from servers import Server, ServerError, StartError


@dataclass
class Standing:
    """What became of one server."""

    name: str
    requirements: list[str] = field(default_factory=list)
    setting: str = ""
    tried: dict[str, float] = field(default_factory=dict)
    """How each setting did; more is better, in no unit."""
    closed: dict[str, list[Pair]] = field(default_factory=dict)
    open_rate: int = 0
    """Requests a second of the open loop."""
    open: list[Pair] = field(default_factory=list)
    skipped: str = ""
    """Why it was not measured, where it was not."""
    failure: str = ""
    """What it did that must not happen."""

    def pairs(self) -> dict[str, list[Pair]]:
        """Those of every load, by its name."""
        return {pairs[0].ours.name: pairs for pairs in [*self.closed.values(), self.open] if pairs}


class Contest:
    """Measures one server after the other."""

    def __init__(self, journal: Journal, programs: Programs, plan: Plan) -> None:
        self.journal = journal
        self.programs = programs
        self.plan = plan
        version = encoding.newest(programs.models)
        self.model = version / "model.onnx"
        self.encoding = Encoding.read(version)
        draw = random.Random(2)
        self.rows = [[draw.randint(1, 1000), draw.randint(1, 800)] for _ in range(VERIFIED_ROWS)]
        self.expected: list[float] = []

    def ours(self) -> Standing:
        """Ours, which must come first: the others' scores are compared with its."""
        standing = Standing("millrace", setting="as it is by default")
        with self.programs.millrace("") as server:
            self.expected = server.values(self.rows)
            self._measure(standing, server)
        return standing

    def peer(self, peer: Peer) -> Standing:
        """A peer at the best of its settings; one that cannot be had here is skipped."""
        peer = replace(peer, protocol=replace(peer.protocol, first_item=self.encoding.first_item))
        standing = Standing(peer.name, peer.requirements())
        try:
            say(f"{peer.name}: {' '.join(standing.requirements)}")
            python = peer.install(self.programs.target / "tools/peers")
            setting = self._best(standing, peer, python)
            standing.setting = str(setting)
            with self._serve(peer, python, setting) as server:
                self._verify(server)
                self._measure(standing, server)
        except (InstallError, StartError) as error:
            standing.skipped = str(error)
            say(f"{peer.name} is skipped: {error}")
        except (ServerError, LoadError, OSError) as error:
            standing.failure = f"{peer.name}: {error}"
            say(standing.failure)
        return standing

    def _serve(self, peer: Peer, python: Path, setting: Setting) -> AbstractContextManager[Server]:
        return peer.serve(python, self.model, setting, self.programs.folder / f"{peer.name}.log")

    def _best(self, standing: Standing, peer: Peer, python: Path) -> Setting:
        if self.plan.tune_seconds == 0 or len(peer.settings) == 1:
            return peer.settings[0]
        merits = {}
        for setting in peer.settings:
            try:
                with self._serve(peer, python, setting) as server:
                    merits[setting] = standing.tried[str(setting)] = self._merit(server)
            except (StartError, LoadError) as error:
                say(f"{peer.name} with {setting}: {error}")
        if not merits:
            raise StartError(f"{peer.name} started with none of its settings")
        return max(merits, key=lambda setting: merits[setting])

    def _merit(self, server: Server) -> float:
        # The geometric mean, so that neither load counts for more. An answer that is an error counts against it.
        def per_second(workload: Workload) -> float:
            load = wrk.rows(workload.rows, workload.connections, server.protocol)
            figures = Figures(**wrk.run(server, load, self.plan.tune_seconds))
            return (figures.requests - sum(figures.errors.values())) / figures.seconds

        return statistics.geometric_mean(max(per_second(workload), 1e-3) for workload in WORKLOADS)

    def _verify(self, server: Server) -> None:
        rows = [self.encoding.encode(row) for row in self.rows]
        self._compare(server.name, "rows of one request", server.values(rows))
        # At the same time, so that they meet in a batch and each must find its way back.
        with ThreadPoolExecutor(VERIFIED_AT_ONCE) as threads:
            singles = list(threads.map(lambda row: server.values([row])[0], rows))
        self._compare(server.name, "requests of one row", singles)

    def _compare(self, name: str, which: str, scores: list[float]) -> None:
        for row, ours, score in zip(self.rows, self.expected, scores, strict=True):
            if not abs(ours - score) <= TOLERANCE:
                raise ServerError(f"wrong answer in {which}: {score} for {row}, for which ours is {ours}")
        say(f"{name}: {len(scores)} {which} are right")

    def _measure(self, standing: Standing, server: Server) -> None:
        for workload in WORKLOADS:
            standing.closed[workload.key] = closed.compare(
                self.journal, self.programs, self.plan, server, workload
            )
        standing.open_rate = _open_rate(standing.closed[WORKLOADS[0].key])
        rate = standing.open_rate
        standing.open = openloop.compare(
            self.journal, self.programs, self.plan, server, rate, f"open_{rate / 1e3:g}k"
        )


def _open_rate(pairs: list[Pair]) -> int:
    """The rate of the plan, or where that would be too much what the server can do with some room."""
    rate = OPEN_SHARE * statistics.median(pair.ours.figures.per_second for pair in pairs)
    return OPEN_RATE if rate >= OPEN_RATE else max(int(rate / 10) * 10, 10)


WORKLOADS = (Workload("1row_c64", 1, 64), Workload("100row_c64", 100, 64))

OPEN_SHARE = 0.7
"""What a server is sent in the open loop at most, as a share of what it reached in the closed one. Near 1 the queue
would grow without end, and only its length would be measured."""

TOLERANCE = 1e-5
"""How far a score may lie from ours, which may have been computed in a batch of another size."""
VERIFIED_ROWS = 100
VERIFIED_AT_ONCE = 32
