"""Measures other inference servers beside ours and the ceiling: `make loadtest-peers`, or see README.md here.

Progress goes to standard error, a table to standard output, and its last line is one JSON object. The status is 1
where a request failed or a peer scored otherwise than ours, whatever the timings are; a peer that cannot be had
here is skipped, which the table says.
"""

import argparse
import sys

import command
import wrk
from contest import Contest
from peer import PEERS, Peer
from plan import PEERS_PLAN, PEERS_QUICK, Plan, Programs
from runs import Journal
from standings import Standings


def main() -> int:
    """Runs what the command line asks for."""
    arguments = _arguments()
    return command.run(lambda: _measure(arguments.only, PEERS_QUICK if arguments.quick else PEERS_PLAN))


def _measure(peers: list[Peer], plan: Plan) -> Standings:
    wrk.require()
    programs = Programs.prepare()
    journal = Journal()
    contest = Contest(journal, programs, plan)
    standings = Standings(journal, [contest.ours()])
    for peer in peers:
        standings.servers.append(contest.peer(peer))
        # After each, so that a run that is cut short has not been for nothing.
        standings.write(programs.folder / "peers.json")
    return standings


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short pair of each, to try the harness")
    parser.add_argument("--only", type=_peers, default=list(PEERS), help="these peers: fastapi,mosec")
    return parser.parse_args()


def _peers(names: str) -> list[Peer]:
    known = {peer.name: peer for peer in PEERS}
    try:
        return [known[name] for name in names.split(",")]
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"no peer {error}: there are {', '.join(known)}") from error


if __name__ == "__main__":
    sys.exit(main())
