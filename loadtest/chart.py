"""Line charts as SVG, in panels, for pages that take no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Panel:
    """A chart of some series over the same places."""

    title: str
    series: Sequence[Sequence[float]]
    """A value for each place; what is not a number is left out."""


@dataclass(frozen=True)
class Chart:
    """Panels, two beside each other, with the same series and places."""

    title: str
    names: Sequence[str]
    """Of the series."""
    places: Sequence[str]
    """What stands below the panels, from left to right; every fourth is written."""
    panels: Sequence[Panel]

    def svg(self) -> str:
        """The text of the file."""
        rows = -(-len(self.panels) // 2)
        width, height = 2 * WIDTH + 3 * MARGIN, HEAD + rows * (HEIGHT + MARGIN)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {FONT}>',
            f"<title>{escape(self.title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            f'<text x="{MARGIN}" y="28" font-size="16" fill="{INK}">{escape(self.title)}</text>',
        ]
        place = MARGIN
        for name, colour in zip(self.names, COLOURS, strict=False):
            parts.append(f'<path d="M{place} 48h24" stroke="{colour}" stroke-width="2.5"/>')
            parts.append(f'<text x="{place + 30}" y="52" fill="{INK}">{escape(name)}</text>')
            place += 60 + 7 * len(name)
        for number, panel in enumerate(self.panels):
            column, row = number % 2, number // 2
            x, y = MARGIN + column * (WIDTH + MARGIN), HEAD + row * (HEIGHT + MARGIN)
            parts.append(f'<g transform="translate({x} {y})">{self._panel(panel)}</g>')
        return "\n".join([*parts, "</svg>", ""])

    def _panel(self, panel: Panel) -> str:
        values = [value for series in panel.series for value in series if value == value]
        step = _step(max(values) - min(values))
        low = step * (min(values) // step)
        high = step * -(-max(values) // step)
        high += step * (high == low)

        def y(value: float) -> float:
            return PLOT * (high - value) / (high - low)

        def x(place: int) -> float:
            return LEFT + (WIDTH - LEFT) * place / max(len(self.places) - 1, 1)

        parts = [f'<text x="0" y="-10" font-weight="bold" fill="{INK}">{escape(panel.title)}</text>']
        for line in range(round((high - low) / step) + 1):
            value = low + line * step
            parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH}" stroke="#dddddd"/>')
            label = f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="{INK}">{value:.2f}</text>'
            parts.append(label)
        for place in range(0, len(self.places), 4):
            text = escape(self.places[place])
            parts.append(f'<text x="{x(place):.1f}" y="{PLOT + 18}" text-anchor="middle" fill="{INK}">{text}</text>')
        for series, colour in zip(panel.series, COLOURS, strict=False):
            points = [f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(series) if value == value]
            parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        return "\n".join(parts)


def _step(span: float) -> float:
    """Between two lines of the grid, so that there are not many."""
    return next((step for step in STEPS if span / step <= 6), STEPS[-1])


WIDTH, HEIGHT, MARGIN, HEAD = 440, 230, 40, 96
"""Of a panel, around it, and above all."""
LEFT, PLOT = 40, 200
FONT = 'font-family="sans-serif" font-size="12"'
INK = "#222222"
COLOURS = ("#0b62a4", "#d1495b", "#5f8f3e")
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
