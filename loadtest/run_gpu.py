"""Measures a server whose model is on a GPU: see README.md beside this file.

Over HTTP, beside ONNX Runtime on the same machine's processor: one connection, an open loop, full load; then versions
with tables of many gigabytes are swapped while every answer is checked. Each part has a time limit, and one that fails
leaves the others as they are; the report is written anew after each. Progress goes to standard error, a table to
standard output, and the last line is one JSON object. The status is 1 where a request, a swap or a part failed,
whatever the timings are.
"""

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import closed
import machine
import openloop
import swap
import tables
import wrk
from closed import WORKLOADS, Workload
from machine import Disturbance
from plan import OPEN_RATE, Plan, Programs
from protocol import MODEL
from runs import Figures, Journal, LoadError, Pair, Run, say
from servers import Millrace, Server, StartError


@dataclass(frozen=True)
class Plans:
    """How long and how often."""

    latency: Plan
    loads: Plan


LOADS_PLAN = Plan(closed_pairs=1, closed_seconds=2, open_pairs=2, open_seconds=3, warm_up_seconds=1)
FULL = Plans(latency=replace(LOADS_PLAN, closed_pairs=2), loads=LOADS_PLAN)
QUICK_PLAN = replace(LOADS_PLAN, closed_seconds=1, open_pairs=1, open_seconds=2)
QUICK = Plans(latency=QUICK_PLAN, loads=QUICK_PLAN)

PARTS = ("latency", "open", "closed", "swap")
SECONDS = {"servers": 60, "latency": 30, "open": 45, "closed": 60, "stop": 20, "swap": math.inf}
"""What each may take, where there is so much."""
SPARE_S = 6
"""What servers that stop take, and files that are removed."""

LATENCY = Workload("1row_c1", 1, 1)
LOADS = tuple(workload for workload in WORKLOADS if workload.connections == swap.CONNECTIONS)
OTHER = "onnx-cpu"
PRECISIONS = ("half", "single")
"""In the order in which they are tried: the golden rows may refuse the first."""
MORE_CONFIG = ("max_queue_rows = 131072", "recommend_threads = 0")
"""As in the closed loop elsewhere; and nobody asks for recommendations."""
GOALS = {"1row_c1_p50_us": 150, "open_10k_p99_us": 2000}
"""What the engine is meant to stay below."""

MAX_SWAPS = 8
BETWEEN_SWAPS_S = 1
TABLES_ROOM = 2.1
"""Times what the tables of a version take."""


class Late(Exception):
    """The time of a part is over. `TimeoutError` is an `OSError`, after which who waits for a server goes on."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    engine: str
    precision: str | None
    table_gb: float
    scratch: list[Path]
    """Where versions with large tables can be made."""
    kernels: Path | None
    only: list[str]
    plan: Plans


@dataclass
class Report:
    """What was found, written anew whenever there is more."""

    path: Path
    options: Options
    journal: Journal
    precision: str | None = None
    refused: dict[str, str] = field(default_factory=dict)
    """Why the engine could not compute in a precision."""
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    swaps: dict[str, object] = field(default_factory=dict)
    errors: list[dict[str, str]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """What each part took."""

    def part(self, name: str, deadline: float, work: Callable[[], None]) -> None:
        """Works until that is done, fails, or its time is over; what is wrong is in the report."""
        start = time.monotonic()
        allowed = min(SECONDS[name], deadline - start)
        if allowed <= 0:
            self.fail(name, "no time was left")
            return

        def late(*_: object) -> None:
            raise Late(f"was not done within {allowed:.0f} s")

        signal.signal(signal.SIGALRM, late)
        try:
            signal.setitimer(signal.ITIMER_REAL, allowed)
            work()
        # Whatever it is, the other parts are worth having.
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            self.fail(name, f"{type(error).__name__}: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.seconds[name] = round(time.monotonic() - start, 1)
            self.write()

    def fail(self, name: str, error: str) -> None:
        """Records what is wrong."""
        self.errors.append({"name": name, "shape": self.options.engine, "error": error[-1000:]})

    def figures(self) -> dict[str, object]:
        """The figures that matter, medians over pairs."""
        figures: dict[str, object] = {"engine": self.options.engine, "precision": self.precision}
        for name, pairs in self.pairs.items():
            for prefix, runs in zip((name, f"{OTHER}_{name}"), _sides(pairs), strict=True):
                figures[f"{prefix}_per_s"] = round(_median(runs, lambda it: it.per_second))
                figures[f"{prefix}_p50_us"] = round(_median(runs, lambda it: 1e3 * it.p50_ms))
                figures[f"{prefix}_p99_us"] = round(_median(runs, lambda it: 1e3 * it.p99_ms))
        return figures | self.swaps

    def table(self) -> list[str]:
        """The figures, for people."""
        lines = [f"{self.options.engine} in {self.precision} precision, beside {OTHER}"] if self.pairs else []
        lines += [f"{precision} precision is refused: {reason}" for precision, reason in self.refused.items()]
        lines += [_line(runs) for pairs in self.pairs.values() for runs in _sides(pairs)]
        figures = self.figures()
        for name, goal in GOALS.items():
            if isinstance(found := figures.get(name), int):
                lines.append(f"{name}: {found}, {'below' if found < goal else 'NOT below'} {goal}")
        lines += [f"{name}: {value}" for name, value in self.swaps.items()]
        return [*lines, "seconds: " + ", ".join(f"{name} {seconds}" for name, seconds in self.seconds.items())]

    def summary(self) -> dict[str, object]:
        """Everything but the single runs."""
        errors = self.errors + [
            {"name": "requests", "shape": self.options.engine, "error": error} for error in self.journal.errors()
        ]
        return {
            "passed": not errors,
            "figures": self.figures(),
            "goals": GOALS,
            "refused": self.refused,
            "seconds": self.seconds,
            "errors": errors,
            "table": self.table(),
            **machine.description(),
        }

    def write(self) -> None:
        """Writes the report, whole or not at all."""
        runs = [asdict(run) | {"per_second": run.figures.per_second} for run in self.journal.runs]
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.summary() | {"runs": runs}, indent=1) + "\n", encoding="utf-8")
        new.rename(self.path)


def main() -> int:
    """Runs what the command line asks for."""
    arguments = _arguments()
    deadline = time.monotonic() + arguments.limit - SPARE_S
    # So that the servers are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = Options(
        engine=arguments.engine,
        # The others do not know half precision.
        precision=arguments.precision if arguments.engine == "cuda" else "single",
        table_gb=arguments.table_gb,
        scratch=[arguments.scratch] if arguments.scratch else [Path("/dev/shm"), Path(tempfile.gettempdir())],
        kernels=arguments.kernels,
        only=arguments.only or list(PARTS),
        plan=QUICK if arguments.quick else FULL,
    )
    report = Report(arguments.out, options, Journal(max_repeats=0))
    try:
        wrk.require()
        measure(_programs(arguments), report, deadline)
    except LoadError as error:
        report.fail("programs", str(error))
    finally:
        report.write()
    summary = report.summary()
    print("\n".join(report.table()))
    print(json.dumps({name: summary[name] for name in ("passed", "figures", "errors")}))
    return 0 if summary["passed"] else 1


def _programs(arguments: argparse.Namespace) -> Programs:
    """Those that the command line names, or else those of Cargo's target folder."""
    if not arguments.models:
        return Programs.prepare()
    target = arguments.target or machine.ROOT / "target"
    folder = arguments.work or target / "loadtest"
    folder.mkdir(parents=True, exist_ok=True)
    return Programs(target.resolve(), folder.resolve(), arguments.models.resolve(), arguments.onnxruntime)


def measure(programs: Programs, report: Report, deadline: float) -> None:
    """Each part in turn."""
    only = report.options.only
    with ExitStack() as stack:
        both: list[tuple[Server, Server]] = []
        if {"latency", "open", "closed"} & set(only):
            report.part("servers", deadline, lambda: both.append(_servers(programs, report, stack)))
        for servers in both:
            _loads(programs, report, deadline, servers)
        # However late it is.
        report.part("stop", math.inf, stack.close)
    if "swap" in only:
        report.part("swap", deadline, lambda: _swap(programs, report, deadline))


def _loads(programs: Programs, report: Report, deadline: float, servers: tuple[Server, Server]) -> None:
    """Both servers under the same loads in turn."""
    journal, plan, pairs = report.journal, report.options.plan, report.pairs

    def latency() -> None:
        pairs[LATENCY.key] = closed.beside(journal, programs, plan.latency, servers, LATENCY)

    def open_loop() -> None:
        pairs["open_10k"] = openloop.beside(journal, programs, plan.loads, servers, OPEN_RATE, "open_10k")

    def closed_loop() -> None:
        for workload in LOADS:
            pairs[workload.key] = closed.beside(journal, programs, plan.loads, servers, workload)

    for name, work in {"latency": latency, "open": open_loop, "closed": closed_loop}.items():
        if name in report.options.only:
            report.part(name, deadline, work)


def _servers(programs: Programs, report: Report, stack: ExitStack) -> tuple[Server, Server]:
    """The server under test, in the first precision that the golden rows let through, and the one beside it."""
    options = report.options
    for precision in [options.precision] if options.precision else PRECISIONS:
        try:
            server = stack.enter_context(_millrace(programs, options, precision, options.engine))
        except StartError as error:
            report.refused[precision] = str(error)[-400:]
            say(f"{precision} precision: {error}")
            continue
        report.precision = precision
        other = replace(options, engine=OTHER)
        return server, stack.enter_context(_millrace(programs, other, "single", f"beside-{OTHER}"))
    raise StartError(f"the engine computes in no precision: {report.refused}")


def _millrace(
    programs: Programs, options: Options, precision: str, name: str
) -> AbstractContextManager[Millrace]:
    lines = [f"cuda_cache_dir = {json.dumps(str(options.kernels))}"] if options.kernels else []
    lines += ["[defaults]", f'engine = "{options.engine}"', f'cuda_precision = "{precision}"', *MORE_CONFIG]
    return programs.millrace("\n".join(lines) + "\n", name)


def _swap(programs: Programs, report: Report, deadline: float) -> None:
    """Two versions with large tables, to and fro. The newer one stays loaded, as the policy says, so every other
    promotion loads a version and the one after it retires that; both are in memory in between."""
    options, swaps = report.options, report.swaps
    table_bytes = round(options.table_gb * 1e9)
    places = [place for place in options.scratch if shutil.disk_usage(place).free > TABLES_ROOM * table_bytes]
    if not places:
        raise LoadError(f"no room for two tables of {options.table_gb} GB in {options.scratch}")
    with tempfile.TemporaryDirectory(dir=places[0]) as folder, ThreadPoolExecutor() as pool:
        start = time.monotonic()
        # Tables that nobody waits for any more must not be written on, for they would stay behind.
        is_late = lambda: time.monotonic() > deadline  # noqa: E731
        made = [
            pool.submit(
                tables.lengthen, programs.models / MODEL / name, Path(folder) / MODEL / name, table_bytes, is_late
            )
            for name in map(str, swap.VERSIONS)
        ]
        # Rows behind those that a vocabulary knows change no score, so these are those of the large versions as well.
        with _millrace(programs, options, "single", "small") as server:
            known = swap.tell_apart(server)
        swaps["swap_table_rows"], _ = (each.result() for each in made)
        swaps["swap_tables_made_s"] = _since(start)
        start = time.monotonic()
        large = replace(programs, models=Path(folder))
        with _millrace(large, options, "single", "large") as server:
            swaps["swap_start_s"] = _since(start)
            # It hashes files with a tenth of the machine while it answers, a core at most, and with a whole core before.
            share = min(1.0, 0.1 * (os.cpu_count() or 1))
            slowest = (time.monotonic() - start) / share
            _to_and_fro(report, swap.Swapper(server, known), deadline, slowest)


def _to_and_fro(report: Report, swapper: swap.Swapper, deadline: float, slowest: float) -> None:
    """Promotes as often as there is time for, of which a load may take as much as the `slowest`."""
    server, done, swaps = swapper.server, swapper.swaps, report.swaps
    loads, memory = server.loads(), [0.0]

    def work(is_running: Callable[[], bool]) -> None:
        nonlocal slowest
        while is_running() and len(done.seconds) < MAX_SWAPS and not done.failed:
            is_load = len(done.seconds) % len(swap.VERSIONS) == 0
            if is_load and time.monotonic() + slowest > deadline - SPARE_S:
                if not done.seconds:
                    raise LoadError(f"a load may take {slowest:.0f} s, for which there is no time")
                return
            swapper.swap()
            if is_load:
                memory.append(server.metric("millrace_gpu_memory_used_bytes"))
                slowest = 1.2 * max(done.seconds)
            time.sleep(BETWEEN_SWAPS_S)

    seconds = max(1, int(deadline - time.monotonic()))
    try:
        swapper.verify(seconds, work, ends_with_work=True)
        swaps["swap_loads"] = server.loads() - loads
    finally:
        rounded = [round(seconds, 3) for seconds in done.seconds]
        swaps |= {
            "swap_table_gb": report.options.table_gb,
            "swap_load_s": rounded[0::2],
            "swap_back_s": rounded[1::2],
            "swap_answers": done.verified_answers,
            "swap_failed": done.failed,
            "swap_gpu_memory_gb": round(max(memory) / 1e9, 1),
        }
        for failure in done.failures:
            report.fail("swap", failure)


def _sides(pairs: list[Pair]) -> tuple[list[Run], list[Run]]:
    return [pair.ours for pair in pairs], [pair.other for pair in pairs]


def _median(runs: list[Run], figure: Callable[[Figures], float]) -> float:
    return statistics.median(figure(run.figures) for run in runs)


def _line(runs: list[Run]) -> str:
    disturbance = max((run.disturbance for run in runs), key=Disturbance.degree)
    return (
        f"{runs[0].name:18} {runs[0].server:15} {_median(runs, lambda it: it.per_second):10,.0f}/s"
        f"  p50 {_median(runs, lambda it: it.p50_ms):8.3f} ms  p99 {_median(runs, lambda it: it.p99_ms):8.3f} ms"
        f"  {statistics.median(run.cpu_us_per_request for run in runs):6.1f} us CPU  {disturbance}"
    )


def _since(start: float) -> float:
    return round(time.monotonic() - start, 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--target", type=Path, help="Cargo's target folder, or one that is laid out like it")
    parser.add_argument("--models", type=Path, help="a repository with versions 1, 2 and 3 of the demo's model")
    parser.add_argument("--onnxruntime", help="ONNX Runtime's library")
    parser.add_argument("--kernels", type=Path, help="a folder with kernels that are compiled")
    parser.add_argument("--work", type=Path, help="the folder for logs")
    parser.add_argument("--out", type=Path, default=Path("gpu-http.json"), help="where the report goes")
    parser.add_argument("--engine", default="cuda", help="what is measured beside onnx-cpu")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the loads; the first that can be used otherwise")
    parser.add_argument("--table-gb", type=float, default=10, help="the tables of a version that is swapped")
    parser.add_argument("--scratch", type=Path, help="where versions with such tables are made")
    parser.add_argument("--limit", type=float, default=150, help="seconds that there are for everything")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given again")
    parser.add_argument("--quick", action="store_true", help="shorter runs, to see that everything works")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
