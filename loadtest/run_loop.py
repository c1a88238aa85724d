"""The loop, shown: `make demo-loop`, or see docs/feedback-loop.md.

A week of a synthetic shop in some minutes. First the users' tastes shift: the accuracy of the answers falls, the server says so,
has a version trained on what it was told since, tries it on a part of the requests and makes it the one that answers. Then a
version that was trained on a log with its labels inverted is published, and the server takes it back. Whoever runs this only
plays the shop. Progress goes to standard error, the picture to docs/loop.svg, and the last line is one JSON object. The status
is 1 where something did not happen in time.
"""

import argparse
import csv
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, TypeVar

import chart
import servers
import traffic
from machine import ROOT
from protocol import MODEL
from runs import say
from servers import HOST, Millrace, ServerError
from traffic import Row, Traffic, Visit
from watch import Sample, Timeline, Watch

USERS, ITEMS = 200, 150
ROWS_PER_SECOND = 1500
DAY_S = 14
"""How long a day of the shop takes."""
ROWS_PER_DAY = ROWS_PER_SECOND * DAY_S
TRAINING_DAYS, STEADY_DAYS, DAYS = 7, 2, 28
"""Days that version 1 is trained on, that it answers before tastes shift, and of the whole log. The runs end by themselves."""
WINDOW_S, MATURITY_S = 20, 5
LOW, HIGH = 0.70, 0.80
"""The accuracy under which the model is not good enough, and the one that it must have otherwise."""
MIN_LABELS = 500
"""Labels of a version without which nobody decides anything."""
SHARE = 0.3
"""Of the requests, what a version answers that is tried."""
PATIENCE_S = 90
"""How long anything may take."""
CAPTION = (
    f"A day takes {DAY_S} s. Accuracy is of the answers of {WINDOW_S} s, up to {MATURITY_S} s ago: their labels have come by then. "
    "So it shows late what happens."
)

CONFIG = """
receipt_keys = {keys}
feedback_dir = {feedback}
feedback_export = {{ dir = {exported}, label_column = "clicked", time_column = "event_time", interval_ms = 2000 }}
rollout_dir = {rollout}
retrain_dir = {retrain}

[models.{model}]
receipts = true
threshold = 0.5
quality_window_ms = {window_ms}
quality_step_ms = 1000
quality_maturity_ms = {maturity_ms}

[models.{model}.rollout]
enter = "canary"
share = {share}
measure = "accuracy"
margin = 0.01
min_labels = {min_labels}
min_requests = 200
max_latency_ratio = 3.0
max_age_ms = 120000

[models.{model}.alert]
below = {low}
clear = 0.75
min_labels = {min_labels}
hold_ms = 0
webhook = "http://{host}:{hook}/"

[models.{model}.retrain]
command = {command}
dir = {folder}
on_alert = true
cooldown_ms = 60000
max_a_day = 4
timeout_ms = 120000
"""

NO_GATES = """
[gates]
accuracy = 0.0
max_auc_drop = 1.0
max_calibration_error = 1.0
max_latency_ms = 1000.0
"""


class LoopError(Exception):
    """Something did not happen."""


T = TypeVar("T")


@dataclass
class Results:
    """What happened, as far as it has."""

    alert_fired: bool = False
    accuracy_before: float | None = None
    accuracy_low: float | None = None
    accuracy_after: float | None = None
    promoted: bool = False
    poisoned_rolled_back: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    timelines: list[Timeline] = field(default_factory=list)

    def summary(self, seconds: float) -> dict[str, object]:
        """The figures, for programs."""
        rounded = lambda value: None if value is None else round(value, 4)  # noqa: E731
        return {
            "alert_fired": self.alert_fired,
            "accuracy_before": rounded(self.accuracy_before),
            "accuracy_low": rounded(self.accuracy_low),
            "accuracy_after": rounded(self.accuracy_after),
            "promoted": self.promoted,
            "poisoned_rolled_back": self.poisoned_rolled_back,
            "requests": self.counts["requests"],
            "rows": self.counts["rows"],
            "labels": self.counts["labels"],
            "errors": sum(count for kind, count in self.counts.items() if kind.startswith("error")),
            "seconds": round(seconds, 1),
        }


@dataclass(frozen=True)
class Shop:
    """Everything that the runs are of: a folder with the log, the models and what servers leave behind."""

    folder: Path
    target: Path
    onnxruntime: str
    rows: list[Row]
    shift: int
    """The moment at which tastes shift, in seconds since 1970."""

    @staticmethod
    def open() -> "Shop":
        """A new one, in Cargo's target folder."""
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
        onnxruntime = os.environ.get("MILLRACE_ONNXRUNTIME")
        if not onnxruntime:
            raise LoopError("MILLRACE_ONNXRUNTIME must name the library whose path deploy/onnxruntime.sh prints")
        folder = target / "demo-loop"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        log = folder / "shop.csv"
        whole = ["--users", USERS, "--items", ITEMS, "--events", DAYS * ROWS_PER_DAY, "--days", DAYS]
        shift_at = (TRAINING_DAYS + STEADY_DAYS) / DAYS
        command = [target / "release/millrace-trainer", "synth", "--out", log, *whole, "--shift-at", shift_at]
        say(_run([str(word) for word in command], onnxruntime).strip())
        rows = traffic.read(log)
        shop = Shop(folder, target, onnxruntime, rows, rows[(TRAINING_DAYS + STEADY_DAYS) * ROWS_PER_DAY].at)
        (folder / "receipt.keys").write_text(secrets.token_hex(32), encoding="ascii")
        (folder / "receipt.keys").chmod(0o600)
        return shop

    @property
    def journal(self) -> Path:
        """What the server writes down of its decisions."""
        return self.folder / f"rollout/{MODEL}.jsonl"

    def train(self, name: str, rows: list[Row], pipeline: Path) -> list[str]:
        """Writes a log of these rows into a folder of this name, and says how a version is made of them."""
        data = self.folder / name
        (data / "exported").mkdir(parents=True)
        with (data / "log.csv").open("w", encoding="ascii", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "item_id", "event_time", "clicked"])
            writer.writerows([row.user, row.item, row.text, row.clicked] for row in rows)
        trainer = self.target / "release/millrace-trainer"
        where = ["--data", str(data), "--repository", str(self.folder / "models")]
        return [str(trainer), "pipeline", str(pipeline), *where]

    def publish(self, command: list[str]) -> None:
        """Makes a version."""
        _run(command, self.onnxruntime)

    def config(self, hook: int, command: list[str]) -> str:
        """The server's configuration."""
        quoted = {
            name: json.dumps(str(self.folder / path))
            for name, path in {
                "keys": "receipt.keys",
                "feedback": "feedback",
                "exported": "shop/exported",
                "rollout": "rollout",
                "retrain": "retrain",
                "folder": "",
            }.items()
        }
        return CONFIG.format(
            **quoted, model=MODEL, host=HOST, hook=hook, command=json.dumps(command), low=LOW, share=SHARE,
            min_labels=MIN_LABELS, window_ms=WINDOW_S * 1000, maturity_ms=MATURITY_S * 1000,
        )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A server with its traffic, while both are running."""

    shop: Shop
    watch: Watch
    traffic: Traffic
    hook: "_Hook"

    def until(self, what: str, holds: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T:
        """Waits for it and says that it came; fails where it does not."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if found := holds():
                say(f"{what}: {self._state()}")
                return found
            if self.traffic.is_over:
                raise LoopError(f"the log ended before this: {what}; {self._state()}")
            if self.watch.timeline.find("rolled_back") and not self.watch.timeline.find("poisoned"):
                raise LoopError(f"a version was rolled back before this: {what}; {self.watch.timeline.events[-1]}")
            time.sleep(0.1)
        raise LoopError(f"waited {patience_s:.0f} s in vain for this: {what}; {self._state()}")

    def good(self, version: int, at_least: float) -> Callable[[], Sample | None]:
        """Whether a version answers alone and its mature window is full and good."""
        since = self.watch.seconds

        def look() -> Sample | None:
            sample = self.watch.now
            # By then the rows of the window were all answered since.
            is_full = sample.seconds > since + WINDOW_S + MATURITY_S
            is_alone = sample.stable == version and sample.candidate == 0
            is_good = sample.accuracy.get(version, 0) >= at_least and sample.labels.get(version, 0) >= MIN_LABELS
            return sample if is_full and is_alone and is_good else None

        return look

    def _state(self) -> str:
        sample = self.watch.now
        good = ", ".join(f"version {version} {value:.3f}" for version, value in sorted(sample.accuracy.items()))
        return f"accuracy {good or 'unknown'}; {sample.stable} answers" + (
            f", {sample.candidate} is tried" if sample.candidate else ""
        )


def main() -> int:
    """Runs what the command line asks for."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    # So that the servers are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results, start, failure = Results(), time.monotonic(), None
    try:
        _show(results)
        if errors := [f"{count} times {kind}" for kind, count in results.counts.items() if kind.startswith("error")]:
            raise LoopError("; ".join(errors))
    except (LoopError, ServerError, OSError, subprocess.TimeoutExpired) as error:
        failure = error
        print(f"demo-loop: {error}", file=sys.stderr)
    print(json.dumps(results.summary(time.monotonic() - start)))
    return 1 if failure else 0


def _show(results: Results) -> None:
    shop = Shop.open()
    pipeline = ROOT / "trainer/pipelines/loop.toml"
    first = TRAINING_DAYS * ROWS_PER_DAY
    retrain = shop.train("shop", shop.rows[:first], pipeline)
    shop.publish(retrain)
    say("version 1 is published")
    visits = traffic.visits(shop.rows[first:])
    try:
        with _running(shop, "Tastes shift", retrain, visits, results) as run:
            _shift(run, results)
        with _running(shop, "A poisoned version", retrain, visits, results) as run:
            _poison(run, results)
    finally:
        seen = [timeline.as_json() for timeline in results.timelines]
        (shop.folder / "timeline.json").write_text(json.dumps(seen), encoding="utf-8")
    picture = ROOT / "docs/loop.svg"
    picture.write_text(chart.draw(results.timelines, LOW, HIGH, CAPTION), encoding="utf-8")
    say(f"the picture is {picture.relative_to(ROOT)}")


def _shift(run: Run, results: Results) -> None:
    """Tastes shift, and the server gets over it."""
    watch, timeline = run.watch, run.watch.timeline
    before = run.until(f"version 1 has answered well for {WINDOW_S} s", run.good(1, HIGH))
    results.accuracy_before = before.accuracy[1]
    run.until("tastes shift", lambda: run.traffic.played >= run.shop.shift)
    watch.note("shift")
    low = run.until(f"accuracy is under {LOW}", lambda: _low(watch.now))
    results.accuracy_low = low
    run.until("the alert came to the webhook", lambda: run.hook.firing)
    results.alert_fired = True
    run.until("the server has had a version trained", lambda: timeline.find("retrain ended"))
    run.until("version 2 is tried", lambda: timeline.find("entered", 2))
    promoted = run.until("version 2 is promoted", lambda: timeline.find("promoted", 2))
    if promoted.by != "millrace":
        raise LoopError(f"version 2 was promoted by {promoted.by}")
    results.promoted = True
    results.accuracy_low = min(sample.accuracy[1] for sample in timeline.samples if _low(sample))
    after = run.until(f"accuracy is over {HIGH} again", run.good(2, HIGH))
    results.accuracy_after = after.accuracy[2]
    run.until("the alert is over", lambda: not watch.now.alert)


def _poison(run: Run, results: Results) -> None:
    """Somebody publishes a version that has learnt the opposite, and the server takes it back."""
    watch, timeline = run.watch, run.watch.timeline
    poison = _poisoned(run.shop, run.traffic.played)
    run.until("version 2 answers well after the restart", run.good(2, HIGH))
    run.shop.publish(poison)
    watch.note("poisoned", 3)
    run.until("version 3 is tried", lambda: timeline.find("entered", 3))
    back = run.until("version 3 is rolled back", lambda: timeline.find("rolled_back", 3))
    if back.by != "millrace":
        raise LoopError(f"version 3 was rolled back by {back.by}")
    results.poisoned_rolled_back = True
    say(f"because {back.reason}")
    run.until("version 2 goes on alone", run.good(2, HIGH))


def _low(sample: Sample) -> float | None:
    """How accurate the first version is, where it answers and that is too little."""
    accuracy = sample.accuracy.get(1, 1)
    return accuracy if sample.stable == 1 and sample.labels.get(1, 0) >= MIN_LABELS and accuracy < LOW else None


def _poisoned(shop: Shop, until: int) -> list[str]:
    """How a version is made that has learnt the last two days with clicks for no clicks, and that no gate keeps away."""
    rows = [row for row in shop.rows if until - 2 * traffic.DAY_S <= row.at < until]
    inverted = [Row(row.user, row.item, row.text, row.at, 1 - row.clicked) for row in rows]
    text = (ROOT / "trainer/pipelines/loop.toml").read_text(encoding="utf-8")
    pipeline = shop.folder / "poisoned.toml"
    pipeline.write_text(text + NO_GATES, encoding="utf-8")
    return shop.train("poisoned", inverted, pipeline)


@contextmanager
def _running(
    shop: Shop, name: str, retrain: list[str], visits: Iterator[Visit], results: Results
) -> Iterator[Run]:
    config = shop.folder / "server.toml"
    log = shop.folder / f"server-{len(results.timelines) + 1}.log"
    timeline = Timeline(name)
    results.timelines.append(timeline)
    binary, models = shop.target / "release/millrace", shop.folder / "models"
    with _webhook() as hook, _told_of(log, shop.journal):
        config.write_text(shop.config(hook.port, retrain), encoding="utf-8")
        with servers.millrace(binary, models, shop.onnxruntime, config, log) as server:
            say(f"{name}: the server answers")
            with Watch(server, shop.journal, timeline) as watch, _played(server, visits, watch, results) as played:
                yield Run(shop, watch, played, hook)


@contextmanager
def _played(server: Millrace, visits: Iterator[Visit], watch: Watch, results: Results) -> Iterator[Traffic]:
    """The traffic, whose counts are added to the results in any case."""
    played = Traffic(server.port, visits, DAY_S, lambda day: watch.timeline.days.append((day, watch.seconds)))
    try:
        with played:
            yield played
    finally:
        results.counts += played.counts


@contextmanager
def _told_of(log: Path, journal: Path) -> Iterator[None]:
    """Shows what the server said last where something fails."""
    try:
        yield
    except BaseException:
        for path in (log, journal):
            with suppress(OSError):
                print(f"--- {path}\n{path.read_text(encoding='utf-8', errors='replace')[-4000:]}", file=sys.stderr)
        raise


class _Hook(HTTPServer):
    """Takes what the server sends when an alert changes, in the form of Alertmanager's webhooks."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.port = int(self.server_address[1])
        self.alerts: list[dict[str, Any]] = []

    @property
    def firing(self) -> bool:
        """Whether an alert of the model has fired."""
        return any(alert["status"] == "firing" and alert["labels"]["model"] == MODEL for alert in self.alerts)


class _Handler(BaseHTTPRequestHandler):
    server: _Hook

    def do_POST(self) -> None:
        """Notes the alerts of a notification."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.alerts += json.loads(body)["alerts"]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def _webhook() -> Iterator[_Hook]:
    with _Hook() as hook:
        thread = threading.Thread(target=hook.serve_forever, daemon=True)
        thread.start()
        yield hook
        hook.shutdown()


def _run(command: list[str], onnxruntime: str) -> str:
    environment = os.environ | {"MILLRACE_ONNXRUNTIME": onnxruntime}
    output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    if output.returncode != 0:
        raise LoopError(f"{command[0]} {command[1]}: status {output.returncode}: {output.stdout}{output.stderr}")
    return output.stdout


if __name__ == "__main__":
    sys.exit(main())
