"""What the commands of this folder have in common: how a measurement is run, printed, and turned into a status."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

from runs import LoadError
from servers import ServerError


class Measured(Protocol):
    """What a command has measured."""

    @property
    def failures(self) -> list[str]:
        """Everything that must not happen and did."""

    def summary(self) -> dict[str, object]:
        """The figures, for programs."""

    def table(self) -> str:
        """The figures, for people."""


def run(measure: Callable[[], Measured]) -> int:
    """Measures and prints; 1 where something failed or could not be measured, whatever the timings are."""
    # So that the servers are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        measured = measure()
    except (LoadError, ServerError, OSError, subprocess.TimeoutExpired) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 1
    print(measured.table())
    print(json.dumps(measured.summary()))
    for failure in measured.failures:
        print(f"loadtest: {failure}", file=sys.stderr)
    return 1 if measured.failures else 0
