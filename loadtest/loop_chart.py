"""The picture of the loop: how accurate each version was, which of them answered, and what happened, beside each other for all
runs, as SVG. `loop_chart.py TIMELINE.json PICTURE.svg` draws it again."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

from watch import Event, Sample, Timeline

WIDTH = 1120
LEFT, RIGHT, GAP = 64, 20, 36
FLAGS_TOP, FLAG_HEIGHT, FLAG_ROWS = 92, 19, 6
PLOT_TOP, PLOT_HEIGHT = FLAGS_TOP + FLAG_ROWS * FLAG_HEIGHT + 6, 270
BAND_TOP, BAND_HEIGHT = PLOT_TOP + PLOT_HEIGHT + 34, 44
HEIGHT = BAND_TOP + BAND_HEIGHT + 64
CHAR = 6.3
"""About how wide a character is."""
MIN_LABELS = 200
"""Labels without which an accuracy is not drawn: it would be mostly chance."""
COLOURS = {1: "#2f6fb5", 2: "#1f8a55", 3: "#c8432f"}
OTHER = "#7a5ca8"
INK, PALE, GRID = "#22272e", "#66707c", "#e3e6ea"

SAID = {
    "shift": "tastes shift",
    "alert": "alert",
    "alert over": "alert over",
    "retrain started": "retraining starts",
    "retrain ended": "retraining ends",
    "poisoned": "poisoned version {version} published",
    "entered": "version {version} tried",
    "promoted": "version {version} promoted",
    "rolled_back": "version {version} rolled back",
}
"""What is drawn of what happened, in words."""


def draw(timelines: list[Timeline], low: float, high: float, caption: str) -> str:
    """The picture, with lines at the accuracies `low` and `high`."""
    spans = [timeline.samples[-1].seconds for timeline in timelines]
    scale = (WIDTH - LEFT - RIGHT - GAP * (len(timelines) - 1)) / sum(spans)
    parts, x = [*_front(caption)], float(LEFT)
    for place, (timeline, span) in enumerate(zip(timelines, spans, strict=True)):
        panel = _Panel(timeline, x, span * scale, scale, timelines[0].days[0][0], is_first=place == 0)
        parts += panel.draw(low, high)
        x += span * scale + GAP
    parts += _legend(timelines)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    style = 'font-family="Helvetica, Arial, sans-serif" font-size="12"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', *parts, "</svg>\n"])


@dataclass(frozen=True)
class _Panel:
    """One run, from `left` on and so wide, with so many pixels a second."""

    timeline: Timeline
    left: float
    width: float
    scale: float
    first_day: int
    is_first: bool

    def draw(self, low: float, high: float) -> Iterator[str]:
        """All of it."""
        yield _text(self.left, FLAGS_TOP - 18, self.timeline.name, size=14, weight="bold")
        yield from self._grid(low, high)
        yield from self._flags()
        for version in _versions(self.timeline):
            yield from self._accuracy(version)
        yield from self._band()
        yield from self._days()

    def _x(self, seconds: float) -> float:
        return self.left + min(max(seconds, 0.0) * self.scale, self.width)

    def _grid(self, low: float, high: float) -> Iterator[str]:
        right = self.left + self.width
        for tenth in range(0, 11, 2):
            y = _y(tenth / 10)
            yield _line(self.left, y, right, y, GRID)
            if self.is_first:
                yield _text(self.left - 8, y + 4, f"{tenth / 10:.1f}", PALE, anchor="end")
        for value in (low, high):
            yield _line(self.left, _y(value), right, _y(value), PALE, dash="5 4")
            yield _text(right - 4, _y(value) - 4, f"{value:.2f}", PALE, anchor="end", size=11)
        if self.is_first:
            middle = PLOT_TOP + PLOT_HEIGHT / 2
            turned = f' transform="rotate(-90 16 {middle:.1f})"'
            yield _text(16, middle, "accuracy, mature window", PALE, anchor="middle", more=turned)

    def _flags(self) -> Iterator[str]:
        """A line for everything that happened, with its words above the plot: below all words that the line would cross."""
        ends = [0.0] * FLAG_ROWS
        for event in sorted(self.timeline.events, key=lambda event: event.seconds):
            if (words := _words(event)) is None:
                continue
            x, length = self._x(event.seconds), CHAR * len(words) + 14
            crossed = [row for row, end in enumerate(ends) if end > x]
            row = min(max(crossed, default=-1) + 1, FLAG_ROWS - 1)
            ends[row] = x + length
            y = FLAGS_TOP + row * FLAG_HEIGHT
            colour = _colour(event.version) if event.version else INK
            yield _line(x, y, x, PLOT_TOP + PLOT_HEIGHT, colour, width=0.9, dash="2 2")
            yield f'<circle cx="{x:.1f}" cy="{y}" r="2.6" fill="{colour}"/>'
            fits = x + length < WIDTH
            yield _text(x + 6 if fits else x - 6, y + 4, words, colour, anchor="start" if fits else "end")

    def _accuracy(self, version: int) -> Iterator[str]:
        """A version's accuracy; pale once it answers nobody any more, for the window is of what it answered before."""

        def state(sample: Sample) -> tuple[bool, bool]:
            return sample.labels.get(version, 0) >= MIN_LABELS, version in (sample.stable, sample.candidate)

        for (is_known, answers), samples in groupby(self.timeline.samples, state):
            if is_known:
                points = " ".join(f"{self._x(sample.seconds):.1f},{_y(sample.accuracy[version]):.1f}" for sample in samples)
                look = f'stroke="{_colour(version)}" stroke-width="2.4" stroke-linejoin="round"'
                yield f'<polyline points="{points}" fill="none" {look} opacity="{1 if answers else 0.3}"/>'

    def _band(self) -> Iterator[str]:
        """Which version answered which share of the requests, the candidate's on top; a look stands for the time up to the next."""
        if self.is_first:
            yield _text(self.left - 8, BAND_TOP + BAND_HEIGHT / 2 + 4, "answers", PALE, anchor="end")
        samples = self.timeline.samples
        known = (sample for sample in samples if sample.stable)
        steps = [next(group) for _, group in groupby(known, lambda one: (one.stable, one.candidate, one.share))]
        for step, until in zip(steps, [step.seconds for step in steps[1:]] + [samples[-1].seconds], strict=True):
            x, width = self._x(step.seconds), self._x(until) - self._x(step.seconds)
            tried = step.share * BAND_HEIGHT if step.candidate else 0.0
            yield _bar(x, BAND_TOP + tried, width, BAND_HEIGHT - tried, _colour(step.stable))
            if tried:
                yield _bar(x, BAND_TOP, width, tried, _colour(step.candidate))

    def _days(self) -> Iterator[str]:
        y = BAND_TOP + BAND_HEIGHT
        yield _line(self.left, y, self.left + self.width, y, PALE)
        ends = [seconds for _, seconds in self.timeline.days[1:]] + [self.timeline.samples[-1].seconds]
        for (day, seconds), end in zip(self.timeline.days, ends, strict=True):
            x = self._x(seconds)
            yield _line(x, y, x, y + 5, PALE)
            # A day of which there is hardly anything goes without.
            if self._x(end) - x > CHAR * 7:
                yield _text(x + 3, y + 16, f"day {day - self.first_day + 1}", PALE, size=11)


def _front(caption: str) -> Iterator[str]:
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    yield _text(LEFT, 28, "The loop: a week of a shop, and a poisoned version", size=17, weight="bold")
    yield _text(LEFT, 48, caption, PALE)


def _legend(timelines: list[Timeline]) -> Iterator[str]:
    x, y = float(LEFT), HEIGHT - 16
    for version in sorted({version for timeline in timelines for version in _versions(timeline)}):
        yield _bar(x, y - 9, 22, 9, _colour(version))
        words = f"version {version}"
        yield _text(x + 28, y, words)
        x += 28 + CHAR * len(words) + 26
    yield _text(x, y, "pale: what is left in the window of a version that answers nobody any more", PALE)


def _versions(timeline: Timeline) -> list[int]:
    labelled = {version for sample in timeline.samples for version, count in sample.labels.items() if count >= MIN_LABELS}
    return sorted(labelled)


def _words(event: Event) -> str | None:
    words = SAID.get(event.kind)
    return words.format(version=event.version) if words else None


def _y(value: float) -> float:
    return PLOT_TOP + (1 - value) * PLOT_HEIGHT


def _colour(version: int) -> str:
    return COLOURS.get(version, OTHER)


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dash: str = "") -> str:
    look = f'stroke="{colour}" stroke-width="{width}"' + (f' stroke-dasharray="{dash}"' if dash else "")
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>'


def _text(
    x: float, y: float, words: str, colour: str = INK, anchor: str = "start", size: int = 12, weight: str = "normal",
    more: str = "",
) -> str:  # fmt: skip
    look = f'fill="{colour}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}{more}>{escape(words)}</text>'


if __name__ == "__main__":
    from loop_shop import CAPTION, HIGH, LOW

    read, written = (Path(name) for name in sys.argv[1:3])
    runs = [Timeline.of_json(run) for run in json.loads(read.read_text(encoding="utf-8"))]
    written.write_text(draw(runs, LOW, HIGH, CAPTION), encoding="utf-8")
