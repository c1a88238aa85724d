"""A shop's half year replayed week by week: `make replay DATA=folder`, or see docs/replay.md.

The invoices of Online Retail II from June 2010 on go through a running server. Two models answer: both begin as the same
version, learnt from everything before June; one is retrained every week on what the server has exported of its feedback,
the other never. Each week's customers are asked about before anything of that week is known, and what they bought is told
a day late. How good the answers were is reported week by week, and what the server says of it live is held against its
exported log. Progress goes to standard error, a table to standard output, and the last line is one JSON object. The status
is 1 where something is not as it should be.
"""

import argparse
import http.client
import json
import math
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import command
import machine
import servers
from chart import Chart, Panel
from exported import Answers, Exported
from invoices import Invoices, Week
from machine import ROOT
from runs import LoadError, say
from servers import HOST, Millrace
from shop import DELAY, Shop, Shown

RETRAINED, FROZEN = "retail", "retail_frozen"
MODELS = (RETRAINED, FROZEN)
START = datetime(2010, 6, 1, tzinfo=UTC)
HELD_OUT = timedelta(days=1)
"""As `split.test_days` of the pipeline."""
PIPELINE = ROOT / "trainer/pipelines/replay.toml"
TOLERANCE = 0.002
"""Between what the server says of its answers and what its log says."""

CONFIG = """
receipt_keys = "{folder}/receipt.keys"
feedback_dir = "{folder}/feedback"
feedback_export = {{ dir = "{folder}/exported", interval_ms = 2000 }}
# Of all answers of the run.
defaults = {{ quality_step_ms = 10000, quality_window_ms = 10000000, quality_maturity_ms = 10000 }}
"""

FIGURES = {
    "auc": "AUC, all items",
    "recall_at_20": "recall@20, all items",
    "new_auc": "AUC, new items",
    "new_recall_at_20": "recall@20, new items",
    "known_auc": "AUC, what both know",
}


@dataclass
class Results:
    """What was found."""

    weeks: list[tuple[datetime, dict[str, Shown]]] = field(default_factory=list)
    """Each by its start."""
    live: dict[Answers, dict[str, float]] = field(default_factory=dict)
    """What the server last said of a version, and its log."""
    refused: int = 0
    """Versions that the gates did not let pass."""
    training_s: list[float] = field(default_factory=list)
    swaps: int = 0
    answers: int = 0
    """To the visitor, whom nobody judges."""
    unanswered: int = 0
    events: int = 0
    failures: list[str] = field(default_factory=list)

    def series(self, model: str, name: str) -> list[float]:
        """A figure of a model, week by week."""
        return [shown[model].figures()[name] for _, shown in self.weeks]

    def summary(self) -> dict[str, object]:
        """The figures, for programs."""
        return {
            "weeks": len(self.weeks),
            "by_week": [self._week(start, shown) for start, shown in self.weeks],
            "customers": sum(len(shown[RETRAINED].customers) for _, shown in self.weeks),
            "rows": sum(answers.rows for _, shown in self.weeks for answers in shown.values()),
            **{name: {model: _mean(self.series(model, name)) for model in MODELS} for name in FIGURES},
            "weeks_better": {name: self._better(name) for name in FIGURES},
            "live_versions": len(self.live),
            "live_auc_difference": round(self._difference("auc"), 6),
            "live_accuracy_difference": round(self._difference("accuracy"), 6),
            "events": self.events,
            "swaps": self.swaps,
            "refused": self.refused,
            "training_seconds": _mean(self.training_s),
            "answers_beside": self.answers,
            "unanswered_beside": self.unanswered,
            "machine": machine.description(),
            "seconds": round(time.monotonic() - STARTED),
            "passed": not self.failures,
        }

    def table(self) -> str:
        """The figures, for people; in Markdown."""
        head = ["week from", "customers", "strangers", "rows", "version"]
        head += [*FIGURES.values(), "live AUC", "by the log"]
        lines: list[list[object]] = [[*head], [":--", *["--:"] * (len(head) - 1)]]
        for start, shown in self.weeks:
            answers = shown[RETRAINED]
            live = self.live.get((RETRAINED, answers.version), {})
            cells = [f"{start:%d %b}", len(answers.customers), answers.strangers, answers.rows, answers.version]
            cells += [self._pair({model: shown[model].figures()[name] for model in MODELS}) for name in FIGURES]
            lines.append([*cells, *(f"{live.get(name, math.nan):.4f}" for name in ("auc", "logged_auc"))])
        means = [self._pair({model: _mean(self.series(model, name)) or math.nan for model in MODELS}) for name in FIGURES]
        lines.append(["mean", "", "", "", "", *means, "", ""])
        return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)

    def chart(self) -> str:
        """The figures as a picture."""
        names = ("retrained every week", "never retrained")
        places = [f"{start:%d %b}" for start, _ in self.weeks]
        panels = [
            Panel(FIGURES[name], [self.series(model, name) for model in MODELS]) for name in list(FIGURES)[:4]
        ]
        return Chart("Online Retail II, June to December 2010, by week", names, places, panels).svg()

    def note(self, name: str, found: float, expected: float, tolerance: float = 0.0) -> None:
        """Notes that something is not what it should be."""
        is_neither = math.isnan(found) and math.isnan(expected)
        if not is_neither and not abs(found - expected) <= tolerance:
            self.failures.append(f"{name} is {found}, and should be {expected}")

    def _week(self, start: datetime, shown: dict[str, Shown]) -> dict[str, object]:
        answers = shown[RETRAINED]
        figures = {
            name: {model: round(shown[model].figures()[name], 4) for model in MODELS} for name in FIGURES
        }
        customers = {"customers": len(answers.customers), "strangers": answers.strangers}
        return {"from": f"{start:%Y-%m-%d}", "version": answers.version, **customers, "rows": answers.rows, **figures}

    def _pair(self, figures: dict[str, float]) -> str:
        return f"{figures[RETRAINED]:.3f} / {figures[FROZEN]:.3f}"

    def _better(self, name: str) -> int:
        pairs = zip(self.series(RETRAINED, name), self.series(FROZEN, name), strict=True)
        return sum(retrained > frozen for retrained, frozen in pairs)

    def _difference(self, name: str) -> float:
        return max(abs(live[name] - live[f"logged_{name}"]) for live in self.live.values())


@dataclass(frozen=True)
class Trainer:
    """The trainer's program, on the shop's folder."""

    program: Path
    folder: Path
    onnxruntime: str

    def begin(self) -> None:
        """Trains on the log alone, and publishes what comes of it as the first version of both models."""
        artifact = ["--artifact", str(self.folder / "first")]
        self._run("train", self._pipeline(RETRAINED), *artifact, "--data", str(self.folder))
        for model in MODELS:
            status, report = self._run("publish", self._pipeline(model), *artifact, *self._repository())
            if status != 0 or report["version"] != 1:
                raise LoadError(f"{model} was not published: {report}")

    def retrain(self) -> tuple[int | None, float]:
        """Trains on the log and what was exported; the version, where the gates let it pass, and how long that took."""
        report = self._run(
            "pipeline", self._pipeline(RETRAINED), "--data", str(self.folder), *self._repository()
        )[1]
        return report["version"], report["seconds"]

    def learnt(self, version: int) -> int:
        """How many rows a version has learnt from."""
        manifest = self.folder / "models" / RETRAINED / str(version) / "manifest.toml"
        return int(tomllib.loads(manifest.read_text(encoding="utf-8"))["lineage"]["rows"])

    def _repository(self) -> list[str]:
        return ["--repository", str(self.folder / "models")]

    def _pipeline(self, model: str) -> str:
        """The pipeline's file, for the model of this name."""
        path = self.folder / f"{model}.toml"
        text = PIPELINE.read_text(encoding="utf-8")
        path.write_text(text.replace(f'model = "{RETRAINED}"', f'model = "{model}"'), encoding="utf-8")
        return str(path)

    def _run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        environment = os.environ | {"MILLRACE_ONNXRUNTIME": self.onnxruntime}
        done = subprocess.run(
            [str(self.program), *arguments],
            capture_output=True, text=True, check=False, timeout=TRAINING_TIMEOUT_S, env=environment,
        )  # fmt: skip
        with (self.folder / "trainer.log").open("a", encoding="utf-8") as log:
            log.write(done.stderr)
        if done.returncode not in (0, REFUSED):
            raise LoadError(f"the trainer ended with status {done.returncode}: {done.stderr[-2000:]}")
        return done.returncode, json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder with the shop's invoices")
    parser.add_argument("--weeks", type=int, help="only so many, to try it")
    parser.add_argument("--chart", type=Path, help="where the chart goes, besides the folder of the run")
    arguments = parser.parse_args()
    return command.run(lambda: _replay(arguments.data, arguments.weeks, arguments.chart))


def _replay(data: Path, weeks: int | None, chart: Path | None) -> Results:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    onnxruntime = os.environ.get("MILLRACE_ONNXRUNTIME")
    if not onnxruntime:
        raise LoadError("MILLRACE_ONNXRUNTIME must name the library whose path deploy/onnxruntime.sh prints")
    folder = target / "loadtest/replay"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "exported").mkdir(parents=True)
    (folder / "receipt.keys").write_text(secrets.token_hex(32), encoding="ascii")
    (folder / "receipt.keys").chmod(0o600)
    (folder / "server.toml").write_text(CONFIG.format(folder=folder), encoding="utf-8")
    invoices, results = Invoices(data), Results()
    invoices.write_before(START, folder / "base.parquet")
    trainer = Trainer(target / "release/millrace-trainer", folder, onnxruntime)
    say("training the first version")
    trainer.begin()
    binary, log = target / "release/millrace", folder / "server.log"
    with (
        servers.millrace(binary, folder / "models", onnxruntime, folder / "server.toml", log) as server,
        _visitor(server, results),
    ):
        _weeks(server, trainer, invoices, weeks, results)
        results.swaps = int(server.metric("millrace_model_swaps_total", f'model="{RETRAINED}"')) - 1
    (folder / "replay.svg").write_text(results.chart(), encoding="utf-8")
    if chart:
        shutil.copy(folder / "replay.svg", chart)
    return results


def _weeks(server: Millrace, trainer: Trainer, invoices: Invoices, count: int | None, results: Results) -> None:
    """Week after week."""
    exported = Exported(trainer.folder / "exported")
    count = min(count or sys.maxsize, invoices.weeks_from(START))
    shop = Shop(server, MODELS, invoices.past(START))
    for number, week in enumerate(islice(invoices.weeks(START), count), 1):
        shown = shop.show(week)
        results.weeks.append((week.start, shown))
        say(f"{week.start:%d %b}: " + ", ".join(_words(model, shown[model]) for model in MODELS))
        if number == 1:
            for name in FIGURES:
                retrained, frozen = (shown[model].figures()[name] for model in MODELS)
                results.note(f"{name} of the same version under another name", retrained, frozen, 1e-9)
        is_last = number == count
        # What is left is of no use to a training any more, but the labels tell how good the last answers were.
        shop.tell(None if is_last else week.end)
        exported.wait(shop.told)
        if not is_last:
            _retrain(server, trainer, invoices, week, results)
        # Afterwards, for the last answers need a while to be mature.
        _compare(server, exported, results)
    results.events = shop.told
    for answers, live in results.live.items():
        if math.isnan(live["auc"]):
            results.failures.append(f"{answers} was not judged")


def _retrain(server: Millrace, trainer: Trainer, invoices: Invoices, week: Week, results: Results) -> None:
    version, seconds = trainer.retrain()
    results.training_s.append(seconds)
    if version is None:
        results.refused += 1
        say("the gates refused the version; see trainer.log")
        return
    expected = invoices.learnt(week.end - DELAY, HELD_OUT)
    results.note(f"rows that version {version} learnt from", trainer.learnt(version), expected)
    deadline = time.monotonic() + SWAP_TIMEOUT_S
    while server.metric("millrace_model_current_version", f'model="{RETRAINED}"') != version:
        if time.monotonic() > deadline:
            raise LoadError(f"version {version} does not answer after {SWAP_TIMEOUT_S} s")
        time.sleep(0.2)


def _compare(server: Millrace, exported: Exported, results: Results) -> None:
    """Holds what the server says of each version that it judges against its log."""
    deadline = time.monotonic() + MATURE_TIMEOUT_S
    while True:
        judged = _judged(server)
        late = {answers for answers in judged if judged[answers]["labelled"] != _rows(exported, answers)}
        if not late or time.monotonic() > deadline:
            break
        time.sleep(1)
    for answers in sorted(late):
        results.failures.append(f"{answers}: {judged[answers]['labelled']} labelled rows, {_rows(exported, answers)} logged")
    for answers, live in judged.items():
        if live["labelled"] > 0 and answers not in late:
            logged = {"logged_auc": exported.auc(answers), "logged_accuracy": exported.accuracy(answers)}
            results.live[answers] = live | logged
            for measure in ("auc", "accuracy"):
                results.note(f"live {measure} of {answers}", live[measure], logged[f"logged_{measure}"], TOLERANCE)


def _judged(server: Millrace) -> dict[Answers, dict[str, float]]:
    """What the server says of the versions in the mature window."""
    judged: dict[Answers, dict[str, float]] = {}
    for line in servers.call(server.management_port, "GET", "/metrics").body.decode().splitlines():
        if line.startswith(("millrace_live_rows{", "millrace_live_quality{")) and 'window="mature"' in line:
            labels = dict(LABEL.findall(line))
            name = labels.get("of") or labels["measure"]
            answers = labels["model"], int(labels["version"])
            judged.setdefault(answers, {})[name] = float(line.rpartition(" ")[2])
    return judged


def _rows(exported: Exported, answers: Answers) -> int:
    return len(exported.labelled(answers)[0]) if answers in exported.answers() else 0


@contextmanager
def _visitor(server: Millrace, results: Results) -> Iterator[None]:
    """Asks both models all the time, while versions are swapped too, and counts what is not answered."""
    over = threading.Event()

    def visit() -> None:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
        body = json.dumps({"input": [[13085, "85048"]]})
        while not over.wait(PAUSE_S):
            for model in MODELS:
                try:
                    connection.request("POST", f"/api/predict/{model}", body, {"content-type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    results.answers += 1
                    results.unanswered += answer.status != 200
                except (OSError, http.client.HTTPException):
                    connection.close()
                    results.unanswered += 1
        connection.close()

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    results.note("requests that were not answered", results.unanswered, 0)


def _words(model: str, shown: Shown) -> str:
    figures = shown.figures()
    return f"{model} {shown.version}: AUC {figures['auc']:.4f} recall@20 {figures['recall_at_20']:.4f}"


def _mean(values: list[float]) -> float | None:
    there = [value for value in values if not math.isnan(value)]
    return round(statistics.mean(there), 4) if there else None


LABEL = re.compile(r'(\w+)="([^"]*)"')
STARTED = time.monotonic()
PAUSE_S = 0.02
SWAP_TIMEOUT_S = 120
MATURE_TIMEOUT_S = 120
TRAINING_TIMEOUT_S = 900
REFUSED = 3
"""The trainer's status where the gates refused."""


if __name__ == "__main__":
    sys.exit(main())
