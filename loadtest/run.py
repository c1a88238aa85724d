"""Measures the server beside the ceiling on this machine: `make loadtest`, or see README.md beside this file.

Progress goes to standard error, a table to standard output, and its last line is one JSON object. The status
is 1 where a request failed or a swap did, whatever the timings are.
"""

import argparse
import sys

import closed
import command
import neighbours
import openloop
import overload
import swap
import wrk
from plan import QUICK, Plan, Programs
from report import Results
from runs import Journal

PHASES = ("closed", "open", "swap", "neighbours", "overload")


def main() -> int:
    """Runs what the command line asks for."""
    arguments = _arguments()
    return command.run(lambda: _measure(arguments.only, QUICK if arguments.quick else Plan()))


def _measure(phases: list[str], plan: Plan) -> Results:
    wrk.require()
    programs = Programs.prepare()
    journal = Journal()
    results = Results(journal)
    if "closed" in phases:
        results.closed = closed.measure(journal, programs, plan)
    if "open" in phases:
        results.open = openloop.measure(journal, programs, plan)
    if "swap" in phases:
        results.swaps = swap.measure(journal, programs, plan)
    if "neighbours" in phases:
        results.neighbours = neighbours.measure(journal, programs, plan)
    if "overload" in phases:
        results.rounds = overload.measure(programs, plan)
    results.write(programs.folder / "results.json")
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short pair of each, to try the harness")
    parser.add_argument("--only", choices=PHASES, action="append", help="this part; may be given again")
    arguments = parser.parse_args()
    arguments.only = arguments.only or list(PHASES)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
