"""Versions swapped under full load: no answer may be wrong, and the tail is compared with that of steady runs.

Promoting goes to and fro between two versions while the policy keeps a third, newer one: so each promotion really
loads a version and retires another. The check of every answer is a run of its own, because it slows wrk down.
"""

import time
from dataclasses import dataclass, field

import wrk
from plan import Plan, Programs
from runs import Journal, LoadError, Pair, say
from servers import Millrace, ServerError

CONFIG = "defaults = { versions = { latest = 1 } }\n"
VERSIONS = (1, 2)
CONNECTIONS = 64

TOLERANCE = 1e-5
"""How far the same row's scores by one version may lie apart, since batches differ in size."""
MIN_DIFFERENCE = 0.01
"""How far two versions' scores of a row must lie apart to tell the versions by them."""


@dataclass(frozen=True)
class Known:
    """A row and its score by each version."""

    row: list[int]
    scores: dict[int, float]

    def difference(self) -> float:
        """How far the scores lie apart."""
        return max(self.scores.values()) - min(self.scores.values())


@dataclass
class Swaps:
    """What was swapped under load and what came of it."""

    pairs: list[Pair] = field(default_factory=list)
    """Runs with swaps, each beside one without."""
    seconds: list[float] = field(default_factory=list)
    """How long each promotion took."""
    loads: int = 0
    """Versions that the server loaded for them."""
    verified_answers: int = 0
    verified_swaps: int = 0
    failures: list[str] = field(default_factory=list)


def measure(journal: Journal, programs: Programs, plan: Plan) -> Swaps:
    """Swaps with every answer checked, then swaps beside steady runs."""
    with programs.millrace(CONFIG) as server:
        swapper = Swapper(server, _tell_apart(server))
        loads = server.loads()
        swapper.verify(plan)
        swapper.compare(journal, plan)
        swapper.swaps.loads = server.loads() - loads
        return swapper.swaps


class Swapper:
    """Promotes one version after the other."""

    def __init__(self, server: Millrace, known: Known) -> None:
        self.server = server
        self.known = known
        self.swaps = Swaps()

    def verify(self, plan: Plan) -> None:
        """Swaps while every answer is checked."""
        scores = [f"{version}={score}" for version, score in self.known.scores.items()]
        load = wrk.Load("swap.lua", [*map(str, self.known.row), *scores], CONNECTIONS)
        seen = wrk.during(self.server, load, lambda: self._swap_often(plan.verified_swaps, plan.verified_seconds))
        swaps, counts = self.swaps, seen["right"]
        swaps.verified_swaps = len(swaps.seconds)
        swaps.verified_answers = sum(counts.values())
        if seen["wrong"]:
            swaps.failures.append(f"{seen['wrong']} wrong answers during swaps, the first: {seen['first_wrong']}")
        if seen["broken"]:
            swaps.failures.append(f"{seen['broken']} requests without an answer during swaps")
        swaps.failures += [f"version {version} never answered" for version, count in counts.items() if count == 0]
        say(f"{swaps.verified_swaps} swaps, right answers by version: {counts}, wrong: {seen['wrong']}")

    def compare(self, journal: Journal, plan: Plan) -> None:
        """Runs with swaps beside runs without."""
        load = wrk.rows(1, CONNECTIONS)

        def swapping() -> None:
            self._swap_often(plan.swaps_per_window, plan.swap_seconds)

        def steady() -> None:
            time.sleep(plan.swap_seconds)

        self.swaps.pairs = journal.pairs(
            plan.swap_pairs,
            lambda: journal.measure("swapping", self.server, lambda: wrk.figures(self.server, load, swapping)),
            lambda: journal.measure("steady", self.server, lambda: wrk.figures(self.server, load, steady)),
        )

    def _swap_often(self, count: int, seconds: float) -> None:
        start = time.monotonic()
        for number in range(count):
            _sleep_until(start + seconds * (number + 0.5) / count)
            self._swap()
        _sleep_until(start + seconds)

    def _swap(self) -> None:
        version = VERSIONS[len(self.swaps.seconds) % len(VERSIONS)]
        start = time.monotonic()
        try:
            self.server.promote(version)
            self.swaps.seconds.append(time.monotonic() - start)
            [score] = self.server.score([self.known.row])
        except (ServerError, OSError) as error:
            self.swaps.failures.append(f"swap to version {version}: {error}")
            return
        if score.version != version or abs(score.value - self.known.scores[version]) > TOLERANCE:
            self.swaps.failures.append(f"after the swap to version {version}: {score}")


def _tell_apart(server: Millrace) -> Known:
    """The row, of a few, whose scores differ most between the versions. The last of them answers afterwards."""
    rows = [[user, item] for user in range(1, 11) for item in range(1, 11)]
    scores = {}
    for version in VERSIONS:
        server.promote(version)
        answers = server.score(rows)
        if any(answer.version != version for answer in answers):
            raise LoadError(f"version {version} was promoted, and version {answers[0].version} answers")
        scores[version] = [answer.value for answer in answers]
    known = [
        Known(row, {version: scores[version][number] for version in VERSIONS}) for number, row in enumerate(rows)
    ]
    best = max(known, key=Known.difference)
    if best.difference() < MIN_DIFFERENCE:
        raise LoadError(f"the versions score alike: {best}")
    return best


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
