"""What was measured: a table for people, one line of JSON for programs, and a file with every run."""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import machine
import overload
from closed import Workload
from neighbours import Neighbours
from runs import Journal, Pair, Run
from swap import Swaps


@dataclass
class Results:
    """What each part measured; nothing where it was not asked for."""

    journal: Journal
    closed: dict[Workload, list[Pair]] = field(default_factory=dict)
    open: dict[str, list[Pair]] = field(default_factory=dict)
    swaps: Swaps = field(default_factory=Swaps)
    neighbours: Neighbours = field(default_factory=Neighbours)
    rounds: list[overload.Round] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Everything that must not happen and did."""
        return self.journal.errors() + self.swaps.failures + self.neighbours.failures + overload.failures(self.rounds)

    def summary(self) -> dict[str, object]:
        """The figures that matter, medians over pairs."""
        figures: dict[str, float] = {}
        for workload, pairs in self.closed.items():
            figures |= _closed(workload, pairs)
        for name, pairs in self.open.items():
            figures |= _open(name, pairs)
        if self.swaps.pairs:
            figures |= _swaps(self.swaps)
        figures |= _neighbours(self.neighbours)
        if self.rounds:
            figures |= overload.summary(self.rounds)
        return {
            **{name: round(value, 4) for name, value in figures.items()},
            "errors": sum(sum(run.figures.errors.values()) for run in self.journal.runs),
            **_disturbance(self._groups()),
            **machine.description(),
        }

    def table(self) -> str:
        """A line for each kind of run and server."""
        header = (
            f"{'medians':18} {'server':9} {'requests/s':>10} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7}"
            f" {'CPU us/request':>14} {'steal':>6} {'others':>6}"
        )
        lines = [_line(runs) for pairs in self._groups() for runs in _sides(pairs)]
        return "\n".join([header, *lines, *overload.table(self.rounds)])

    def write(self, path: Path) -> None:
        """Writes the summary and every run, those of repeated pairs too."""
        runs = [asdict(run) | {"per_second": run.figures.per_second} for run in self.journal.runs]
        rounds = [asdict(each) for each in self.rounds]
        results = {"summary": self.summary(), "failures": self.failures, "runs": runs, "overload": rounds}
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    def _groups(self) -> list[list[Pair]]:
        groups = [*self.closed.values(), *self.open.values(), self.swaps.pairs, *self.neighbours.groups()]
        return [pairs for pairs in groups if pairs]


def _closed(workload: Workload, pairs: list[Pair]) -> dict[str, float]:
    key, (ours, ceiling) = workload.key, _sides(pairs)
    figures = {
        f"ratio_{key}": _median_ratio(pairs, _per_second),
        f"per_second_{key}": _median(ours, _per_second),
        f"rows_per_core_second_{key}": workload.rows * 1e6 / _median(ours, _cpu),
        f"p99_ms_{key}": _median(ours, _p99),
        f"ceiling_p99_ms_{key}": _median(ceiling, _p99),
    }
    if key == "1row_c64":
        figures["server_cpu_us_per_request"] = _median(ours, _cpu)
        figures["ceiling_cpu_us_per_request"] = _median(ceiling, _cpu)
    return figures


def _open(name: str, pairs: list[Pair]) -> dict[str, float]:
    ours, ceiling = _sides(pairs)
    return {
        f"{name}_per_second": _median(ours, _per_second),
        f"{name}_p50_ms": _median(ours, _p50),
        f"{name}_p99_ms": _median(ours, _p99),
        f"{name}_p999_ms": _median(ours, _p999),
        f"{name}_p50_ratio": _median_ratio(pairs, _p50),
        f"{name}_p99_ratio": _median_ratio(pairs, _p99),
        f"{name}_p999_ratio": _median_ratio(pairs, _p999),
        f"{name}_cpu_us_per_request": _median(ours, _cpu),
        f"ceiling_{name}_per_second": _median(ceiling, _per_second),
        f"ceiling_{name}_p50_ms": _median(ceiling, _p50),
        f"ceiling_{name}_p99_ms": _median(ceiling, _p99),
        f"ceiling_{name}_p999_ms": _median(ceiling, _p999),
    }


def _swaps(swaps: Swaps) -> dict[str, float]:
    swapping, steady = _sides(swaps.pairs)
    return {
        "swaps": len(swaps.seconds),
        "swap_loads": swaps.loads,
        "swaps_verified": swaps.verified_swaps,
        "swap_answers_verified": swaps.verified_answers,
        "swap_failures": swaps.failed,
        "swap_ms": statistics.median(swaps.seconds or [0.0]) * 1e3,
        "swap_p99_ms": _median(swapping, _p99),
        "steady_p99_ms": _median(steady, _p99),
        "swap_p99_ratio": _median_ratio(swaps.pairs, _p99),
        "swap_per_second_ratio": _median_ratio(swaps.pairs, _per_second),
    }


def _neighbours(neighbours: Neighbours) -> dict[str, float]:
    idle = {f"of_{models}_models_ratio": _median_ratio(p, _per_second) for models, p in neighbours.idle.items()}
    tables = {f"table_{rows}_ratio": _median_ratio(p, _per_second) for rows, p in neighbours.tables.items()}
    figures = idle | tables
    if neighbours.large:
        figures |= {
            "large_swap_p99_ratio": _median_ratio(neighbours.large, _p99),
            "large_swap_per_second_ratio": _median_ratio(neighbours.large, _per_second),
            "large_swap_loads": neighbours.large_loads,
            "large_swap_memory": neighbours.large_memory,
        }
    if neighbours.heavy:
        figures["beside_heavy_p99_ratio"] = _median_ratio(neighbours.heavy, _p99)
    return figures


def _disturbance(groups: list[list[Pair]]) -> dict[str, float]:
    pairs = [pair for pairs in groups for pair in pairs]
    shares = [run.disturbance for pair in pairs for run in (pair.ours, pair.other)]
    return {
        "disturbed_pairs": sum(pair.disturbance() > 1 for pair in pairs),
        "steal": round(max((share.steal for share in shares), default=0.0), 4),
        "others": round(max((share.other for share in shares), default=0.0), 4),
    }


def _line(runs: list[Run]) -> str:
    slowest = max(run.figures.max_ms for run in runs)
    steal = max(run.disturbance.steal for run in runs)
    other = max(run.disturbance.other for run in runs)
    return (
        f"{runs[0].name:18} {runs[0].server:9} {_median(runs, _per_second):10,.0f} {_median(runs, _p50):7.2f}"
        f" {_median(runs, _p99):7.2f} {slowest:7.1f} {_median(runs, _cpu):14.1f} {steal:6.1%} {other:6.1%}"
    )


def _sides(pairs: list[Pair]) -> tuple[list[Run], list[Run]]:
    return [pair.ours for pair in pairs], [pair.other for pair in pairs]


def _median(runs: list[Run], figure: Callable[[Run], float]) -> float:
    return statistics.median(figure(run) for run in runs)


def _median_ratio(pairs: list[Pair], figure: Callable[[Run], float]) -> float:
    return statistics.median(figure(pair.ours) / figure(pair.other) for pair in pairs)


def _per_second(run: Run) -> float:
    return run.figures.per_second


def _p50(run: Run) -> float:
    return run.figures.p50_ms


def _p99(run: Run) -> float:
    return run.figures.p99_ms


def _p999(run: Run) -> float:
    return run.figures.p999_ms


def _cpu(run: Run) -> float:
    return run.cpu_us_per_request
