"""Measures feedback on this machine: `make loadtest-feedback`, or see README.md beside this file.

How many events a second are durable, in requests of 100 over a few connections, what receipts cost at full load, and what a disk
that stalls costs predictions, where `--stall` asks for it, which takes root. Progress
goes to standard error, a table to standard output, and the last line is one JSON object. The status is 1 where a request
failed, whatever the timings are.
"""

import argparse
import http.client
import json
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import command
import machine
import stall
import wrk
from plan import QUICK, Plan, Programs
from protocol import MODEL
from runs import Figures, Journal, LoadError, Pair, Run
from servers import Server

BATCH = 100
"""Events in a request."""
CONNECTIONS = 4
HOST = "127.0.0.1"
JSON = {"content-type": "application/json"}


@dataclass
class Results:
    """What was measured."""

    journal: Journal
    events: dict[str, list[Run]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    stalled: stall.Stalled = field(default_factory=stall.Stalled)

    @property
    def failures(self) -> list[str]:
        """Every kind of error of every run, and what was not as it must be on a disk that stalls."""
        return self.journal.errors() + self.stalled.failures

    def summary(self) -> dict[str, object]:
        """The figures, for programs."""
        worst = max(self.journal.runs, key=lambda run: run.disturbance.degree())
        return {
            "machine": machine.description(),
            "events_per_second": {kind: round(_events(runs)) for kind, runs in self.events.items()},
            "receipts_ratio": round(self._ratio(), 3) if self.pairs else None,
            "stalled_p99_ratio": round(self._stalled(), 3) if self.stalled.pairs else None,
            "stalled_feedback": {name: dict(told) for name, told in self.stalled.told.items()},
            "most_steal": round(worst.disturbance.steal, 4),
        }

    def table(self) -> str:
        """The figures, for people."""
        lines = [f"durable {kind:10} {_events(runs):10,.0f}/s" for kind, runs in self.events.items()]
        if self.pairs:
            lines.append(f"requests with receipts beside those without: {self._ratio():.3f}")
        if self.stalled.pairs:
            lines.append(f"p99 while the disk stalls beside that while it does not: {self._stalled():.3f}")
        return "\n".join(lines)

    def _stalled(self) -> float:
        pairs = self.stalled.pairs
        return statistics.median(pair.ours.figures.p99_ms / pair.other.figures.p99_ms for pair in pairs)

    def _ratio(self) -> float:
        ratios = (pair.ours.figures.per_second / pair.other.figures.per_second for pair in self.pairs)
        return statistics.median(ratios)


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short run of each, to try the harness")
    parser.add_argument("--stall", action="store_true", help="only requests while the disk stalls; takes root")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    return command.run(lambda: _measure(plan, arguments.stall))


def _measure(plan: Plan, stalls: bool) -> Results:
    wrk.require()
    programs = Programs.prepare()
    results = Results(Journal())
    # Beside the models, for the folder of temporary files may lie in memory.
    with tempfile.TemporaryDirectory(dir=programs.folder) as folder:
        keys = Path(folder) / "receipt.keys"
        keys.write_text(secrets.token_hex(32), encoding="ascii")
        if stalls:
            results.stalled = stall.measure(results.journal, programs, plan, Path(folder), keys)
            return results
        config = f'receipt_keys = "{keys}"\nfeedback_dir = "{folder}/log"\n'
        with programs.millrace(config) as server:
            kinds = {"behaviour": _behaviour, "labels": _labels}
            for _ in range(plan.closed_pairs):
                for kind, bodies in kinds.items():
                    run = results.journal.measure(kind, server, lambda b=bodies: _tell(server, b, plan.closed_seconds))
                    results.events.setdefault(kind, []).append(run)

            def predict(name: str, *headers: str) -> Run:
                load = wrk.rows(1, 64, headers=headers)
                return results.journal.measure(
                    name, server, lambda: Figures(**wrk.run(server, load, plan.near_seconds))
                )

            predict("warm-up")
            # Requests of the same size, so that the client has as much to do for either.
            pairs = results.journal.pairs(
                plan.near_pairs,
                lambda: predict("receipts", "x-receipt: true"),
                lambda: predict("no receipts", "x-receipt: false"),
            )
            results.pairs.extend(pairs)
    return results


def _tell(server: Server, bodies: Callable[[Server, int], Iterator[str]], seconds: int) -> Figures:
    """Sends `bodies`, each once, over a few connections for so long. Waits for its turn count as any."""
    lock, took, failed = threading.Lock(), [], {"status": 0}

    def send(number: int) -> None:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
        for body in bodies(server, number):
            if time.monotonic() > end:
                break
            start = time.monotonic()
            connection.request("POST", "/api/feedback", body, JSON)
            answer = connection.getresponse()
            taken = json.loads(answer.read())
            with lock:
                took.append((time.monotonic() - start) * 1e3)
                failed["status"] += answer.status != 200 or taken.get("accepted") != BATCH
        connection.close()

    start = time.monotonic()
    end = start + seconds
    threads = [threading.Thread(target=send, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - start
    if len(took) < 2:
        raise LoadError("fewer than two requests with feedback were answered")
    quantiles = statistics.quantiles(took, n=1000, method="inclusive")
    return Figures(len(took), elapsed, quantiles[499], quantiles[989], quantiles[998], max(took), failed)


def _behaviour(_server: Server, _number: int) -> Iterator[str]:
    name = secrets.token_hex(8)
    request = 0
    while True:
        events = [
            {"id": f"{name}-{request}-{i}", "record": {"user_id": i, "item_id": request, "clicked": i % 2}}
            for i in range(BATCH)
        ]
        yield json.dumps({"events": events})
        request += 1


def _labels(server: Server, number: int) -> Iterator[str]:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    question = json.dumps({"input": [[1 + number, 1 + i] for i in range(BATCH)]})
    while True:
        connection.request("POST", f"/api/predict/{MODEL}", question, {**JSON, "x-receipt": "true"})
        answer = connection.getresponse()
        answer.read()
        receipt = answer.getheader("x-receipt")
        if receipt is None:
            raise LoadError(f"an answer without a receipt, with status {answer.status}")
        yield json.dumps({"events": [{"receipt": receipt, "row": i, "label": i % 2} for i in range(BATCH)]})


def _events(runs: list[Run]) -> float:
    return BATCH * statistics.median(run.figures.per_second for run in runs)


if __name__ == "__main__":
    sys.exit(main())
