"""The shop before the server: what it asks for its customers, how good the answers were by what they then bought, and what
it tells of that, late."""

import http.client
import json
import random
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy

import measures
from invoices import Past, Week
from runs import LoadError
from servers import HOST, Millrace

SAMPLE = 200
"""Items that a customer did not buy in the week, drawn for each; those bought are told apart from these."""
BEST = 20
"""Items that are recommended."""
DELAY = timedelta(days=1)
"""Between a purchase, or the end of a week without it, and the moment at which the server is told."""


@dataclass
class Shown:
    """A week's answers of one model."""

    version: int
    rows: int = 0
    strangers: int = 0
    """Customers of whom the eldest model knows nothing."""
    customers: list[dict[str, float]] = field(default_factory=list)
    """The figures of each; not a number where there was nothing to tell."""

    def figures(self) -> dict[str, float]:
        """Each figure's mean over the customers for whom there is one."""
        names = self.customers[0]
        return {name: float(numpy.nanmean([customer[name] for customer in self.customers])) for name in names}


class Shop:
    """A shop that asks several models the same and shows its customers what they say."""

    def __init__(self, server: Millrace, models: tuple[str, ...], known: Past) -> None:
        """`known` is what the eldest model has learnt from."""
        self._models = models
        self._known = known
        self._connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
        self._pending: list[tuple[datetime, dict[str, Any]]] = []
        self.told = 0

    def show(self, week: Week) -> dict[str, Shown]:
        """Asks for everybody who will buy in the week, and judges the answers; what comes of them is told later."""
        shown: dict[str, Shown] = {}
        for customer, basket in week.baskets.items():
            bought = frozenset(basket) & week.past.items
            draw = random.Random(f"{week.start} {customer}")
            others = draw.sample(sorted(week.past.items - bought), SAMPLE)
            if bought:
                for model in self._models:
                    self._show(model, week, customer, sorted(bought) + others, shown)
        lines = [(line.at + DELAY, {"id": f"line-{line.number}", "record": line.record}) for line in week.lines]
        self._pending += lines
        self._connection.close()
        return shown

    def tell(self, until: datetime | None = None) -> None:
        """Tells what has become known until a moment, or all that is left, in that order."""
        is_known = [until is None or known <= until for known, _ in self._pending]
        due = [event for event, is_due in zip(self._pending, is_known, strict=True) if is_due]
        self._pending = [event for event, is_due in zip(self._pending, is_known, strict=True) if not is_due]
        due.sort(key=lambda event: event[0])
        for first in range(0, len(due), EVENTS):
            self._tell([event for _, event in due[first : first + EVENTS]])
        # A training comes next, and the server closes what is idle for long.
        self._connection.close()

    def _show(self, model: str, week: Week, customer: int, items: list[str], shown: dict[str, Shown]) -> None:
        bought, before = frozenset(week.baskets[customer]) & week.past.items, week.past.basket(customer)
        versions: set[int] = set()
        values = numpy.array(self._score(model, week, customer, items, versions))
        best = self._best(model, customer, frozenset(), versions)
        best_new = self._best(model, customer, before, versions)
        answers = shown.setdefault(model, Shown(min(versions)))
        if versions != {answers.version}:
            raise LoadError(f"{model}: versions {versions} answered in a week of version {answers.version}")
        answers.rows += len(items)
        answers.strangers += customer not in self._known.baskets
        labels = numpy.array([item in bought for item in items])
        is_new = numpy.array([item not in before for item in items])
        # Of what the eldest model knows, so that nothing is a stranger to it.
        is_known = numpy.array([customer in self._known.baskets and item in self._known.items for item in items])
        answers.customers.append({
            "auc": measures.auc(values, labels),
            "recall_at_20": measures.recall(best, bought, BEST),
            "new_auc": measures.auc(values[is_new], labels[is_new]),
            "new_recall_at_20": measures.recall(best_new, bought - before, BEST),
            "known_auc": measures.auc(values[is_known], labels[is_known]),
        })  # fmt: skip

    def _score(self, model: str, week: Week, customer: int, items: list[str], versions: set[int]) -> list[float]:
        """The scores of items, whose labels will be told."""
        basket, scores = week.baskets[customer], []
        for first in range(0, len(items), ROWS):
            part = items[first : first + ROWS]
            body = {"input": [[customer, item] for item in part]}
            answer, headers = self._call(f"/api/predict/{model}", body, {"x-receipt": "true"})
            scores += answer["output"]
            versions.add(int(headers["x-model-version"]))
            for row, item in enumerate(part):
                event = {"receipt": headers["x-receipt"], "row": row, "label": int(item in basket)}
                self._pending.append((basket.get(item, week.end) + DELAY, event))
        return scores

    def _best(self, model: str, customer: int, excluded: frozenset[str], versions: set[int]) -> list[str]:
        """The items that are recommended."""
        body = {"user": customer, "k": BEST, "exclude": sorted(excluded)}
        answer, headers = self._call(f"/api/recommend/{model}", body)
        versions.add(int(headers["x-model-version"]))
        return [str(one["item"]) for one in answer["output"]]

    def _tell(self, events: list[dict[str, Any]]) -> None:
        answer, _ = self._call("/api/feedback", {"events": events})
        if answer != {"accepted": len(events), "duplicates": 0}:
            raise LoadError(f"of {len(events)} events of feedback: {answer}")
        self.told += len(events)

    def _call(self, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[Any, dict[str, str]]:
        text = json.dumps(body)
        for pause in PAUSES_S:
            self._connection.request("POST", path, text, {"content-type": "application/json"} | (headers or {}))
            response = self._connection.getresponse()
            answer = json.loads(response.read())
            if response.status == 200:
                return answer, {name.lower(): value for name, value in response.getheaders()}
            if response.status != 503:
                break
            time.sleep(pause)
        raise LoadError(f"{path}: status {response.status}: {answer}")


EVENTS = 500
"""In a body."""
ROWS = 100
"""In a request, so that its receipt, which comes back with every label, is short."""
PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 0.0)
"""Before what was refused for want of room is asked again."""
