"""What the contest found: a table for people, one line of JSON for programs, and a file with every run."""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import machine
from contest import Standing
from plan import OPEN_RATE
from runs import Journal, Pair, Run


@dataclass
class Standings:
    """All that were measured or skipped."""

    journal: Journal
    servers: list[Standing]

    @property
    def failures(self) -> list[str]:
        """Everything that must not happen and did."""
        return self.journal.errors() + [server.failure for server in self.servers if server.failure]

    def summary(self) -> dict[str, object]:
        """The figures that matter, medians over pairs, and ratios to the ceiling in the same pair."""
        pairs = [pair for server in self.servers for pairs in server.pairs().values() for pair in pairs]
        return {
            "servers": {server.name: _summary(server) for server in self.servers},
            "skipped": {server.name: server.skipped for server in self.servers if server.skipped},
            "disturbed_pairs": sum(pair.disturbance() > 1 for pair in pairs),
            "errors": sum(sum(run.figures.errors.values()) for run in self.journal.runs),
            **machine.description(),
        }

    def table(self) -> str:
        """A line for each server and load, the ceiling's first."""
        columns = "".join(f" {figure.title:>{figure.width}} {'ratio':>7}" for figure in FIGURES)
        lines = [f"{'medians':10} {'server':9}{columns} {'steal':>6} {'others':>6} {'errors':>6}"]
        lines += [_ceiling_line(name, self._beside(name)) for name in self.servers[0].pairs()]
        for server in self.servers:
            if server.skipped:
                lines.append(f"{'':10} {server.name:9} skipped: {' '.join(server.skipped.split())[-200:]}")
            if server.failure:
                lines.append(f"{'':10} {server.name:9} failed, see below")
            lines += [_line(name, pairs) for name, pairs in server.pairs().items()]
        return "\n".join([*lines, *self._remarks()])

    def write(self, path: Path) -> None:
        """Writes the summary and every run, those of repeated pairs too."""
        runs = [asdict(run) | {"per_second": run.figures.per_second} for run in self.journal.runs]
        results = {"summary": self.summary(), "failures": self.failures, "runs": runs}
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    def _beside(self, name: str) -> list[Pair]:
        """Every server's pairs of this load."""
        return [pair for server in self.servers for pair in server.pairs().get(name, [])]

    def _remarks(self) -> Iterable[str]:
        for server in self.servers:
            if server.pairs():
                yield f"{server.name}: {server.setting}"
            if server.open and server.open_rate < OPEN_RATE:
                yield (
                    f"{server.name}: does not reach {OPEN_RATE:,} requests/s with room to spare,"
                    f" so the open loop sends {server.open_rate:,}"
                )


@dataclass(frozen=True)
class Figure:
    """A column with its ratio to the ceiling."""

    key: str
    title: str
    width: int
    digits: int
    of: Callable[[Run], float]


FIGURES = (
    Figure("per_second", "requests/s", 10, 0, lambda run: run.figures.per_second),
    Figure("p50_ms", "p50 ms", 8, 2, lambda run: run.figures.p50_ms),
    Figure("p99_ms", "p99 ms", 8, 2, lambda run: run.figures.p99_ms),
    Figure("cpu_us_per_request", "CPU us", 8, 1, lambda run: run.cpu_us_per_request),
)


def _summary(server: Standing) -> dict[str, object]:
    if server.skipped:
        return {"requirements": server.requirements, "skipped": server.skipped}
    return {
        "requirements": server.requirements,
        "setting": server.setting,
        "tried": {setting: round(merit, 1) for setting, merit in server.tried.items()},
        "open_rate": server.open_rate,
        "reaches_open_rate": server.open_rate == OPEN_RATE,
        "loads": {name: _figures(pairs) for name, pairs in server.pairs().items()},
        "failure": server.failure,
    }


def _figures(pairs: list[Pair]) -> dict[str, float]:
    figures = {}
    for figure in FIGURES:
        figures[figure.key] = statistics.median(figure.of(pair.ours) for pair in pairs)
        figures[f"ceiling_{figure.key}"] = statistics.median(figure.of(pair.other) for pair in pairs)
        figures[f"ratio_{figure.key}"] = _ratio(figure, pairs)
    rounded = {key: round(value, 4) for key, value in figures.items()}
    return rounded | {"steal": _steal(pairs), "others": _others(pairs), "errors": _errors(pairs)}


def _line(name: str, pairs: list[Pair]) -> str:
    columns = "".join(
        f" {_median(figure, [pair.ours for pair in pairs])} {_short(_ratio(figure, pairs)):>7}"
        for figure in FIGURES
    )
    shares = f"{_steal(pairs):6.1%} {_others(pairs):6.1%} {_errors(pairs):6}"
    return f"{name:10} {pairs[0].ours.server:9}{columns} {shares}"


def _ceiling_line(name: str, pairs: list[Pair]) -> str:
    columns = "".join(f" {_median(figure, [pair.other for pair in pairs])} {'':7}" for figure in FIGURES)
    return f"{name:10} {pairs[0].other.server:9}{columns}".rstrip()


def _median(figure: Figure, runs: list[Run]) -> str:
    return f"{statistics.median(figure.of(run) for run in runs):{figure.width},.{figure.digits}f}"


def _short(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio < 10 else f"{ratio:,.0f}"


def _ratio(figure: Figure, pairs: list[Pair]) -> float:
    # What the clock does not resolve is no divisor.
    return statistics.median(figure.of(pair.ours) / max(figure.of(pair.other), 1e-9) for pair in pairs)


def _steal(pairs: list[Pair]) -> float:
    return max(run.disturbance.steal for pair in pairs for run in (pair.ours, pair.other))


def _others(pairs: list[Pair]) -> float:
    return max(run.disturbance.other for pair in pairs for run in (pair.ours, pair.other))


def _errors(pairs: list[Pair]) -> int:
    return sum(sum(pair.ours.figures.errors.values()) for pair in pairs)
