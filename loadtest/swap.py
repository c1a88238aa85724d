"""Versions swapped under full load: no answer may be wrong; the tail is compared with that of steady runs.

Promoting goes to and fro between two versions while the policy keeps a third, newer one: so each promotion
really loads a version and retires another. The check of every answer is a run of its own, for it slows wrk.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import wrk
from plan import Plan, Programs
from runs import Figures, Journal, LoadError, Pair, Run, say
from servers import Millrace, ServerError

CONFIG = "defaults = { versions = { latest = 1 } }\n"
VERSIONS = (1, 2)
CONNECTIONS = 64
PROMOTE_TIMEOUT_S = 180
"""The files of a large version are hashed with a tenth of the machine only."""

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
    failed: int = 0
    """Answers that were wrong or did not come, and swaps that were refused or had no effect."""
    failures: list[str] = field(default_factory=list)
    """The same in words."""


def measure(journal: Journal, programs: Programs, plan: Plan) -> Swaps:
    """Swaps with every answer checked, then swaps beside steady runs."""
    with programs.millrace(CONFIG) as server:
        swapper = Swapper(server, tell_apart(server))
        loads = server.loads()
        swapper.verify(plan.verified_seconds, swapper.pace(plan.verified_swaps, plan.verified_seconds))
        swapper.compare(journal, plan)
        swapper.swaps.loads = server.loads() - loads
        return swapper.swaps


class Swapper:
    """Promotes one version after the other."""

    def __init__(self, server: Millrace, known: Known) -> None:
        self.server = server
        self.known = known
        self.swaps = Swaps()

    def verify(self, seconds: int, work: wrk.Work, *, ends_with_work: bool = False) -> None:
        """Swaps, as `work` does, while every answer is checked, for so long or no longer than the work takes."""
        scores = [f"{version}={score}" for version, score in self.known.scores.items()]
        load = wrk.Load("swap.lua", [*map(str, self.known.row), *scores], CONNECTIONS)
        seen = wrk.run(self.server, load, seconds, work, ends_with_work=ends_with_work)
        swaps, counts = self.swaps, seen["right"]
        swaps.verified_swaps = len(swaps.seconds)
        swaps.verified_answers = sum(counts.values())
        swaps.failed += seen["wrong"] + seen["broken"]
        if seen["wrong"]:
            swaps.failures.append(f"{seen['wrong']} wrong answers, the first: {seen['first_wrong']}")
        if seen["broken"]:
            swaps.failures.append(f"{seen['broken']} requests without an answer")
        unseen = [version for version, count in counts.items() if count == 0]
        swaps.failures += [f"version {version} never answered" for version in unseen]
        say(f"{swaps.verified_swaps} swaps, right answers by version: {counts}, wrong: {seen['wrong']}")

    def compare(self, journal: Journal, plan: Plan) -> None:
        """Runs with swaps beside runs without."""
        seconds, load = plan.swap_seconds, wrk.rows(1, CONNECTIONS)

        def run(name: str, work: wrk.Work) -> Run:
            return journal.measure(
                name, self.server, lambda: Figures(**wrk.run(self.server, load, seconds, work))
            )

        self.swaps.pairs = journal.pairs(
            plan.swap_pairs,
            lambda: run("swapping", self.pace(plan.swaps_per_window, seconds)),
            lambda: run("steady", lambda _: None),
        )

    def pace(self, count: int, seconds: int) -> wrk.Work:
        """So many swaps, evenly over the time; fewer where the load ends before they are done."""

        def work(is_running: Callable[[], bool]) -> None:
            start = time.monotonic()
            for number in range(count):
                time.sleep(max(0.0, start + seconds * (number + 0.5) / count - time.monotonic()))
                if not is_running():
                    return
                self.swap()

        return work

    def swap(self) -> None:
        """Promotes the version whose turn it is, and asks it."""
        version = VERSIONS[len(self.swaps.seconds) % len(VERSIONS)]
        start = time.monotonic()
        try:
            self.server.promote(version, timeout=PROMOTE_TIMEOUT_S)
            self.swaps.seconds.append(time.monotonic() - start)
            [score] = self.server.score([self.known.row])
        except (ServerError, OSError) as error:
            self._fail(f"swap to version {version}: {error}")
            return
        if score.version != version or abs(score.value - self.known.scores[version]) > TOLERANCE:
            self._fail(f"after the swap to version {version}: {score}")

    def _fail(self, failure: str) -> None:
        self.swaps.failed += 1
        self.swaps.failures.append(failure)


def tell_apart(server: Millrace) -> Known:
    """The row, of a few, whose scores differ most between the versions; the last of these answers then."""
    rows = [[user, item] for user in range(1, 11) for item in range(1, 11)]
    scores = {}
    for version in VERSIONS:
        server.promote(version)
        answers = server.score(rows)
        if any(answer.version != version for answer in answers):
            raise LoadError(f"version {version} was promoted, and version {answers[0].version} answers")
        scores[version] = [answer.value for answer in answers]
    known = (
        Known(row, {version: scores[version][number] for version in VERSIONS})
        for number, row in enumerate(rows)
    )
    best = max(known, key=Known.difference)
    if best.difference() < MIN_DIFFERENCE:
        raise LoadError(f"the versions score alike: {best}")
    return best
