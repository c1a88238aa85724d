"""How good a ranking is, by what was bought. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray


def auc(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of pairs of a row that happened and one that did not in which the first has the higher score; a tie counts
    half. Not a number where rows of one kind are missing."""
    happened, others = scores[labels], numpy.sort(scores[~labels])
    if not len(happened) or not len(others):
        return float("nan")
    below = numpy.searchsorted(others, happened, "left").sum() + numpy.searchsorted(others, happened, "right").sum()
    return float(below) / 2 / len(others) / len(happened)


def accuracy(scores: NDArray[Any], labels: NDArray[Any], threshold: float) -> float:
    """The share of rows that are scored on their side of the threshold."""
    return float(((scores >= threshold) == labels).mean())


def recall(ranked: Sequence[str], bought: frozenset[str], k: int) -> float:
    """Of what was bought, or of `k` where that is fewer, the share among the first `k`; not a number where nothing was
    bought."""
    if not bought:
        return float("nan")
    return len(bought.intersection(ranked[:k])) / min(len(bought), k)
