"""The tables that a server has exported of its feedback: how many events they hold, and how good the answers were by
them."""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

import measures
from runs import LoadError

Answers = tuple[str, int]
"""Of a model and a version."""


class Exported:
    """The tables in a folder, each of which is read once."""

    def __init__(self, folder: Path) -> None:
        """None so far."""
        self._folder = folder
        self._files: set[Path] = set()
        self._labelled: dict[Answers, list[tuple[NDArray[Any], NDArray[Any]]]] = defaultdict(list)
        self.events = 0

    def wait(self, events: int) -> None:
        """Waits until there are so many events."""
        deadline = time.monotonic() + WAIT_S
        while self._read() < events:
            if time.monotonic() > deadline:
                raise LoadError(f"{self.events} of {events} events were exported within {WAIT_S} s")
            time.sleep(0.5)
        if self.events > events:
            raise LoadError(f"{self.events} events were exported, and {events} were told")

    def answers(self) -> list[Answers]:
        """The versions whose answers have labels."""
        return sorted(self._labelled)

    def labelled(self, answers: Answers) -> tuple[NDArray[Any], NDArray[Any]]:
        """The scores of rows that have a label, and the labels."""
        scores, labels = zip(*self._labelled[answers], strict=True)
        return numpy.concatenate(scores), numpy.concatenate(labels)

    def auc(self, answers: Answers) -> float:
        """The AUC over all rows that have a label."""
        return measures.auc(*self.labelled(answers))

    def accuracy(self, answers: Answers) -> float:
        """The accuracy over them."""
        return measures.accuracy(*self.labelled(answers), THRESHOLD)

    def _read(self) -> int:
        for path in sorted(set(self._folder.glob("*.parquet")) - self._files):
            self._files.add(path)
            file = pyarrow.parquet.ParquetFile(path)
            self.events += file.metadata.num_rows
            # A table without labels has not their columns.
            if set(COLUMNS) <= set(file.schema.names):
                self._take(file.read(list(COLUMNS)))
        return self.events

    def _take(self, table: pyarrow.Table) -> None:
        table = table.filter(pyarrow.compute.is_valid(table["millrace_label"]))
        for group in table.group_by(["millrace_model", "millrace_version"]).aggregate([]).to_pylist():
            model, version = group["millrace_model"], group["millrace_version"]
            is_model = pyarrow.compute.equal(table["millrace_model"], model)
            is_version = pyarrow.compute.equal(table["millrace_version"], version)
            rows = table.filter(pyarrow.compute.and_(is_model, is_version))
            scores = rows["millrace_score"].to_numpy(), rows["millrace_label"].to_numpy()
            self._labelled[model, version].append(scores)


COLUMNS = ("millrace_model", "millrace_version", "millrace_score", "millrace_label")
THRESHOLD = 0.5
"""As the server's."""
WAIT_S = 120
