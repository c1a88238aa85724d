"""How long and how often everything is run, and with which programs."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import repository
import servers
from machine import ROOT
from runs import LoadError
from servers import Millrace, Server


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    closed_pairs: int = 5
    closed_seconds: int = 6
    near_pairs: int = 30
    near_seconds: int = 2
    """Of what differs by little: a machine that is now fast and now slow is so for both of a pair that is over soon."""
    open_pairs: int = 5
    open_seconds: int = 60
    swap_pairs: int = 5
    swap_seconds: int = 6
    swaps_per_window: int = 10
    large_swap_seconds: int = 20
    verified_swaps: int = 50
    verified_seconds: int = 30
    warm_up_seconds: int = 2
    overload_rounds: int = 3
    overload_seconds: int = 8
    tune_seconds: int = 2
    """Of each load, for each of a peer's settings; 0 is to take the first."""


QUICK = Plan(
    closed_pairs=1,
    closed_seconds=2,
    near_pairs=1,
    open_pairs=1,
    open_seconds=3,
    swap_pairs=1,
    swap_seconds=3,
    swaps_per_window=5,
    large_swap_seconds=5,
    verified_swaps=10,
    verified_seconds=5,
    overload_rounds=1,
    overload_seconds=2,
    warm_up_seconds=1,
)
"""Enough to see that everything works; its figures mean nothing."""

PEERS_PLAN = Plan(closed_pairs=3, closed_seconds=5, open_pairs=2, open_seconds=10)
"""Less of each, since there are many."""

PEERS_QUICK = replace(QUICK, tune_seconds=0)
"""The same as `QUICK`, with the first settings."""

OPEN_RATE = 10_000
"""Requests a second of the open loop."""


@dataclass(frozen=True)
class Programs:
    """The programs under test and where their files lie."""

    target: Path
    """Cargo's target folder."""
    folder: Path
    """Where logs, the model repository and the results go."""
    models: Path
    onnxruntime: str

    @staticmethod
    def prepare() -> "Programs":
        """Those of Cargo's target folder, with a model repository that is made where there is none."""
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
        folder = target / "loadtest"
        folder.mkdir(parents=True, exist_ok=True)
        onnxruntime = os.environ.get("MILLRACE_ONNXRUNTIME")
        if not onnxruntime:
            raise LoadError(
                "MILLRACE_ONNXRUNTIME must name the library whose path deploy/onnxruntime.sh prints"
            )
        models = repository.make(target / "release/millrace-trainer", folder, onnxruntime)
        return Programs(target, folder, models, onnxruntime)

    @property
    def oha(self) -> Path:
        """The open-loop load generator."""
        return self.target / "tools/bin/oha"

    def millrace(self, config: str, name: str = "millrace") -> AbstractContextManager[Millrace]:
        """Ours with this configuration."""
        # Since two servers may run at once, with other models or under another name.
        stem = self.models.name if name == "millrace" else f"{self.models.name}-{name}"
        path, log = self.folder / f"{stem}.toml", self.folder / f"{stem}.log"
        path.write_text(config, encoding="utf-8")
        binary = self.target / "release/millrace"
        return servers.millrace(binary, self.models, self.onnxruntime, path, log, name)

    def heavy(self) -> "Programs":
        """The same with the heavy model."""
        return replace(self, models=repository.make_heavy(self.trainer, self.folder, self.onnxruntime))

    def tables(self) -> "Programs":
        """The same with the models whose tables differ in size."""
        return replace(self, models=repository.make_tables(self.trainer, self.folder, self.onnxruntime))

    @property
    def trainer(self) -> Path:
        """The program that makes the models."""
        return self.target / "release/millrace-trainer"

    def ceiling(self, rows: int) -> AbstractContextManager[Server]:
        """The bare server with so many scores in an answer."""
        return servers.ceiling(self.target / "release/ceiling", rows, self.folder / "ceiling.log")
