"""How a server is asked for scores over HTTP: where, with which body, and where in its answer they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """What one server understands."""

    path: str
    body: str
    """A request, with `COUNT` in place of the number of rows and `ROWS` in place of them."""
    row: str
    """A row, with `%d` in place of its user and its item."""
    scores: Callable[[Any], list[float]]
    """The scores in the JSON of an answer."""
    users: int = 1000
    """Users count from 1 to this."""
    first_item: int = 1
    """The first item's number: ids count from 1, rows of the model's table after the users'."""

    def request(self, rows: list[list[int]]) -> str:
        """The body that asks for the scores of `rows`."""
        text = ", ".join(self.row % tuple(row) for row in rows)
        return self.body.replace("COUNT", str(len(rows))).replace("ROWS", text)


MODEL = "recommendation_model"

OURS = Protocol(
    path=f"/api/predict/{MODEL}",
    body='{"input": [ROWS]}',
    row="[%d, %d]",
    scores=lambda answer: answer["output"],
)
"""The server's own."""
