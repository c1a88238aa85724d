"""The model repository under test: versions of the demo's model on a synthetic log, with a seed each."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from machine import ROOT
from runs import LoadError, say

VERSIONS = 3
"""Versions are swapped among those before the newest, which the policy keeps loaded all the time."""


def make(trainer: Path, folder: Path, onnxruntime: str) -> Path:
    """The repository in `folder`, made where it is not there yet."""
    repository, part = folder / "models", folder / "models.part"
    if not repository.exists():
        shutil.rmtree(part, ignore_errors=True)
        _run([str(trainer), "synth", "--out", str(folder / "log.parquet")], onnxruntime)
        for seed in range(1, VERSIONS + 1):
            _publish(trainer, folder, part, onnxruntime, seed)
        part.rename(repository)
    return repository


def _publish(trainer: Path, folder: Path, repository: Path, onnxruntime: str, seed: int) -> None:
    demo = (ROOT / "trainer/pipelines/demo.toml").read_text(encoding="utf-8")
    pipeline = folder / "pipeline.toml"
    pipeline.write_text(re.sub(r"(?m)^seed = \d+$", f"seed = {seed}", demo), encoding="utf-8")
    paths = ["--data", str(folder), "--repository", str(repository)]
    say(f"training version {seed} of {VERSIONS}")
    _run([str(trainer), "pipeline", str(pipeline), *paths], onnxruntime)


def _run(command: list[str], onnxruntime: str) -> None:
    environment = os.environ | {"MILLRACE_ONNXRUNTIME": onnxruntime}
    output = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=environment
    )
    if output.returncode != 0:
        raise LoadError(f"{command[0]} {command[1]}: {output.stdout}{output.stderr}")


TIMEOUT_S = 600
