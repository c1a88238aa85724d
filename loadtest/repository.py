"""The model repositories under test: versions of the demo's model on a synthetic log, with a seed each, and a heavy one."""

import os
import re
import shutil
import subprocess
import sys
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
            say(f"training version {seed} of {VERSIONS}")
            _publish(trainer, folder, part, onnxruntime, {"seed": str(seed)})
        part.rename(repository)
    return repository


def make_heavy(trainer: Path, folder: Path, onnxruntime: str) -> Path:
    """A repository in `folder` whose model computes some two thousand rows a second on a core, made where it is not there
    yet. It has learnt next to nothing, which costs as much to compute."""
    repository, part = folder / "heavy-models", folder / "heavy-models.part"
    if not repository.exists():
        shutil.rmtree(part, ignore_errors=True)
        log = folder / "heavy"
        log.mkdir(exist_ok=True)
        say("training the heavy model")
        _run([str(trainer), "synth", "--events", "3000", "--out", str(log / "log.parquet")], onnxruntime)
        changes = {"hidden_units": "[5120, 5120, 3072]", "epochs": "1"}
        gates = "[gates]\naccuracy = 0.0\nmax_calibration_error = 1.0\nmax_latency_ms = 1000.0\n"
        _publish(trainer, log, part, onnxruntime, changes, gates)
        part.rename(repository)
    return repository


def _publish(
    trainer: Path, folder: Path, repository: Path, onnxruntime: str, changes: dict[str, str], more: str = ""
) -> None:
    """Publishes a version by the demo's pipeline with these changes, on the log in `folder`."""
    text = (ROOT / "trainer/pipelines/demo.toml").read_text(encoding="utf-8")
    for key, value in changes.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        if count != 1:
            raise LoadError(f"the demo's pipeline has {count} lines for `{key}`")
    pipeline = folder / "pipeline.toml"
    pipeline.write_text(f"{text}\n{more}", encoding="utf-8")
    paths = ["--data", str(folder), "--repository", str(repository)]
    _run([str(trainer), "pipeline", str(pipeline), *paths], onnxruntime)


def _run(command: list[str], onnxruntime: str) -> None:
    environment = os.environ | {"MILLRACE_ONNXRUNTIME": onnxruntime}
    output = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, env=environment
    )
    if output.returncode != 0:
        raise LoadError(f"{command[0]} {command[1]}: {output.stdout}{output.stderr}")


TIMEOUT_S = 600


if __name__ == "__main__":
    # For whoever needs a version and no load: `repository.py TARGET` prints the newest one's folder.
    target = Path(sys.argv[1]).resolve()
    (target / "loadtest").mkdir(parents=True, exist_ok=True)
    trainer, library = target / "release/millrace-trainer", os.environ["MILLRACE_ONNXRUNTIME"]
    print(make(trainer, target / "loadtest", library) / "recommendation_model" / str(VERSIONS))
