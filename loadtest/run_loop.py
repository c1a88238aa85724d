"""The loop, shown: `make demo-loop`, or see docs/feedback-loop.md.

A week of a synthetic shop in some minutes. First the users' tastes shift: the accuracy of the answers falls, the server says so,
has a version trained on what it was told since, tries it on a part of the requests and makes it the one that answers. Then a
version that was trained on a log with its labels inverted is published, and the server takes it back. Whoever runs this only
plays the shop. Progress goes to standard error, the picture to docs/loop.svg, and the last line is one JSON object. The status
is 1 where something did not happen in time.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import loop_chart
import servers
import traffic
import webhook
from loop_shop import CAPTION, DAY_S, HIGH, LOW, MATURITY_S, MIN_LABELS, ROWS_PER_DAY, TRAINING_DAYS, WINDOW_S, Shop
from machine import ROOT
from protocol import MODEL
from runs import LoadError, say
from servers import Millrace, ServerError
from traffic import Traffic, Visit
from watch import Sample, Timeline, Watch

PATIENCE_S = 90
"""How long anything may take."""

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
        return {
            "alert_fired": self.alert_fired,
            "accuracy_before": _rounded(self.accuracy_before),
            "accuracy_low": _rounded(self.accuracy_low),
            "accuracy_after": _rounded(self.accuracy_after),
            "promoted": self.promoted,
            "poisoned_rolled_back": self.poisoned_rolled_back,
            "requests": self.counts["requests"],
            "rows": self.counts["rows"],
            "labels": self.counts["labels"],
            "errors": sum(count for kind, count in self.counts.items() if kind.startswith("error")),
            "seconds": round(seconds, 1),
        }


@dataclass(frozen=True)
class Run:
    """A server with its traffic, while both are running."""

    shop: Shop
    watch: Watch
    traffic: Traffic
    hook: webhook.Hook

    def until(self, what: str, holds: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T:
        """Waits for it and says that it came; fails where it does not."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if found := holds():
                say(f"{what}: {self._state()}")
                return found
            if self.traffic.is_over:
                raise LoadError(f"the log ended before this: {what}; {self._state()}")
            if self.watch.timeline.find("rolled_back") and not self.watch.timeline.find("poisoned"):
                raise LoadError(f"a version was rolled back before this: {what}; {self.watch.timeline.events[-1]}")
            time.sleep(0.1)
        raise LoadError(f"waited {patience_s:.0f} s in vain for this: {what}; {self._state()}")

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
            raise LoadError("; ".join(errors))
    except (LoadError, ServerError, OSError, subprocess.TimeoutExpired) as error:
        failure = error
        print(f"demo-loop: {error}", file=sys.stderr)
    print(json.dumps(results.summary(time.monotonic() - start)))
    return 1 if failure else 0


def _show(results: Results) -> None:
    shop = Shop.open()
    first = TRAINING_DAYS * ROWS_PER_DAY
    shop.log("shop", shop.rows[:first])
    shop.publish(shop.training("shop"))
    say("version 1 is published")
    visits = traffic.visits(shop.rows[first:])
    try:
        with _running(shop, "Tastes shift", visits, results) as run:
            _shift(run, results)
        with _running(shop, "A poisoned version", visits, results) as run:
            _poison(run, results)
    finally:
        seen = [timeline.as_json() for timeline in results.timelines]
        (shop.folder / "timeline.json").write_text(json.dumps(seen), encoding="utf-8")
    picture = ROOT / "docs/loop.svg"
    picture.write_text(loop_chart.draw(results.timelines, LOW, HIGH, CAPTION), encoding="utf-8")
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
    run.until("the alert came to the webhook", lambda: run.hook.has_fired(model=MODEL))
    results.alert_fired = True
    run.until("the server has had a version trained", lambda: timeline.find("retrain ended"))
    run.until("version 2 is tried", lambda: timeline.find("entered", 2))
    promoted = run.until("version 2 is promoted", lambda: timeline.find("promoted", 2))
    if promoted.by != "millrace":
        raise LoadError(f"version 2 was promoted by {promoted.by}")
    results.promoted = True
    results.accuracy_low = min(sample.accuracy[1] for sample in timeline.samples if _low(sample))
    after = run.until(f"accuracy is over {HIGH} again", run.good(2, HIGH))
    results.accuracy_after = after.accuracy[2]
    run.until("the alert is over", lambda: not watch.now.alert)


def _poison(run: Run, results: Results) -> None:
    """Somebody publishes a version that has learnt the opposite, and the server takes it back."""
    watch, timeline = run.watch, run.watch.timeline
    run.until("version 2 answers well after the restart", run.good(2, HIGH))
    run.shop.poison(run.traffic.played)
    run.shop.publish(run.shop.training("poisoned", run.shop.folder / "poisoned.toml"))
    watch.note("poisoned", 3)
    run.until("version 3 is tried", lambda: timeline.find("entered", 3))
    back = run.until("version 3 is rolled back", lambda: timeline.find("rolled_back", 3))
    if back.by != "millrace":
        raise LoadError(f"version 3 was rolled back by {back.by}")
    results.poisoned_rolled_back = True
    say(f"because {back.reason}")
    run.until("version 2 goes on alone", run.good(2, HIGH))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _low(sample: Sample) -> float | None:
    """How accurate the first version is, where it answers and that is too little."""
    accuracy = sample.accuracy.get(1, 1)
    return accuracy if sample.stable == 1 and sample.labels.get(1, 0) >= MIN_LABELS and accuracy < LOW else None


@contextmanager
def _running(shop: Shop, name: str, visits: Iterator[Visit], results: Results) -> Iterator[Run]:
    config = shop.folder / "server.toml"
    log = shop.folder / f"server-{len(results.timelines) + 1}.log"
    timeline = Timeline(name)
    results.timelines.append(timeline)
    binary, models = shop.target / "release/millrace", shop.folder / "models"
    with webhook.listen() as hook, _told_of(log, shop.journal):
        config.write_text(shop.config(hook.port), encoding="utf-8")
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


if __name__ == "__main__":
    sys.exit(main())
