"""The lines of a shop's invoices, Online Retail II, in the order of time: what the shop knows at a moment, and who bought
what in the week that follows."""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute
import pyarrow.parquet

FILE = "online_retail_2009_2010.parquet"
TIME = "InvoiceDate"


@dataclass(frozen=True)
class Line:
    """A line of an invoice."""

    number: int
    """Its place in the file."""
    at: datetime
    record: dict[str, Any]
    """Its columns, as a training log has them."""

    @property
    def is_purchase(self) -> bool:
        """Whether a customer who is known by name bought something; else it is a guest's, a return or a correction."""
        return self.record[CUSTOMER] is not None and self.record["Quantity"] > 0 and self.record["Price"] > 0

    @property
    def customer(self) -> int:
        """Who, of a purchase."""
        return int(self.record[CUSTOMER])

    @property
    def item(self) -> str:
        """What."""
        return str(self.record["StockCode"])


@dataclass(frozen=True)
class Past:
    """What was bought before a moment."""

    items: frozenset[str]
    baskets: dict[int, frozenset[str]]
    """By customer."""

    def basket(self, customer: int) -> frozenset[str]:
        """What a customer had bought."""
        return self.baskets.get(customer, frozenset())


@dataclass(frozen=True)
class Week:
    """Seven days, or what there is of them."""

    start: datetime
    end: datetime
    lines: list[Line]
    past: Past
    """Before it."""
    baskets: dict[int, dict[str, datetime]]
    """By customer, what was bought in it and when first."""


class Invoices:
    """All lines."""

    def __init__(self, folder: Path) -> None:
        """Reads those in `folder`."""
        self._table = pyarrow.parquet.read_table(folder / FILE)
        rows = self._table.to_pylist()
        self.lines = [Line(number, _moment(row[TIME]), _record(row)) for number, row in enumerate(rows)]
        self.lines.sort(key=lambda line: line.at)
        self._purchases = [line.at for line in self.lines if line.is_purchase]

    def write_before(self, moment: datetime, path: Path) -> None:
        """Writes the lines before a moment as a log of their own."""
        is_before = pyarrow.compute.less(self._table[TIME], moment.strftime(FORMAT))
        pyarrow.parquet.write_table(self._table.filter(is_before), path)

    def learnt(self, before: datetime, held_out: timedelta) -> int:
        """How many purchases a training learns from that knows those before a moment, but for the last so much of them."""
        known = bisect.bisect_left(self._purchases, before)
        # The second after the last one is where the log ends.
        cut = self._purchases[known - 1] + timedelta(seconds=1) - held_out
        return bisect.bisect_left(self._purchases, cut)

    def past(self, before: datetime) -> Past:
        """What was bought before a moment."""
        bought = _Bought()
        bought.add(self.lines[: self._place(before)])
        return bought.past()

    def weeks_from(self, start: datetime) -> int:
        """How many weeks there are from a moment on."""
        return max(0, -((start - self.lines[-1].at) // WEEK))

    def weeks(self, start: datetime) -> Iterator[Week]:
        """The weeks from a moment on, up to the last line."""
        bought, place = _Bought(), self._place(start)
        bought.add(self.lines[:place])
        while place < len(self.lines):
            end = start + WEEK
            lines = self.lines[place : self._place(end)]
            baskets: dict[int, dict[str, datetime]] = {}
            for line in lines:
                if line.is_purchase:
                    baskets.setdefault(line.customer, {}).setdefault(line.item, line.at)
            yield Week(start, end, lines, bought.past(), dict(sorted(baskets.items())))
            bought.add(lines)
            start, place = end, place + len(lines)

    def _place(self, moment: datetime) -> int:
        return bisect.bisect_left(self.lines, moment, key=lambda line: line.at)


class _Bought:
    """What was bought so far."""

    def __init__(self) -> None:
        self._items: set[str] = set()
        self._baskets: dict[int, set[str]] = {}

    def add(self, lines: list[Line]) -> None:
        for line in lines:
            if line.is_purchase:
                self._items.add(line.item)
                self._baskets.setdefault(line.customer, set()).add(line.item)

    def past(self) -> Past:
        baskets = {customer: frozenset(basket) for customer, basket in self._baskets.items()}
        return Past(frozenset(self._items), baskets)


def _moment(text: str) -> datetime:
    return datetime.strptime(text, FORMAT).replace(tzinfo=UTC)


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """A data frame stores whole numbers as floats where some are missing."""
    customer = row[CUSTOMER]
    return row | {CUSTOMER: None if customer is None else int(customer)}


CUSTOMER = "Customer ID"
FORMAT = "%Y-%m-%d %H:%M:%S"
WEEK = timedelta(days=7)
