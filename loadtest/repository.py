"""The model repositories under test: versions of the demo's model on a synthetic log, with a seed each, a heavy one, and
some with tables of many sizes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from machine import ROOT
from protocol import MODEL
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
            _publish(trainer, folder, part, onnxruntime, {"seed = 7": f"seed = {seed}"})
        part.rename(repository)
    return repository


def make_heavy(trainer: Path, folder: Path, onnxruntime: str) -> Path:
    """A repository in `folder` whose model computes some two thousand rows a second on a core, made where it is not there
    yet."""
    changes = {"hidden_units = [64, 32]": "hidden_units = [5120, 5120, 3072]"}
    return _make_untaught(trainer, folder, onnxruntime, "heavy", [changes])


def make_tables(trainer: Path, folder: Path, onnxruntime: str) -> Path:
    """A repository in `folder` with models `table_ROWS` whose users' tables have so many rows, made where it is not there
    yet; the largest has two versions."""
    models = [(rows, 7) for rows in TABLE_ROWS] + [(TABLE_ROWS[-1], 8)]
    changes = [
        {
            f"{USER} {{ vocabulary = {{ minimum_count = 1 }} }}": f"{USER} {{ hash = {{ buckets = {rows} }} }}",
            "embedding_dimension = 16": "embedding_dimension = 32",
            f'"{MODEL}"': f'"{table_model(rows)}"',
            "seed = 7": f"seed = {seed}",
        }
        for rows, seed in models
    ]
    return _make_untaught(trainer, folder, onnxruntime, "tables", changes)


def gather(repository: Path, versions: dict[str, Path]) -> Path:
    """A repository in which each of these versions is the only one of the model of that name. Files are shared."""
    shutil.rmtree(repository, ignore_errors=True)
    for name, version in versions.items():
        folder = repository / name / version.name
        shutil.copytree(version, folder, copy_function=os.link)
        manifest = folder / "manifest.toml"
        text = manifest.read_text(encoding="utf-8")
        manifest.unlink()
        manifest.write_text(text.replace(f'model = "{version.parent.name}"', f'model = "{name}"'), encoding="utf-8")
    return repository


def table_model(rows: int) -> str:
    """The name of the model whose users' table has so many rows."""
    return f"table_{rows}"


TABLE_ROWS = (10_000, 1_000_000, 16_000_000)
"""The largest table takes 2.1 GB."""


def _make_untaught(
    trainer: Path, folder: Path, onnxruntime: str, name: str, versions: list[dict[str, str]]
) -> Path:
    """A repository of versions that have learnt next to nothing, which costs as much to compute."""
    repository, part = folder / f"{name}-models", folder / f"{name}-models.part"
    if not repository.exists():
        shutil.rmtree(part, ignore_errors=True)
        log = folder / name
        log.mkdir(exist_ok=True)
        _run([str(trainer), "synth", "--events", "3000", "--out", str(log / "log.parquet")], onnxruntime)
        for number, changes in enumerate(versions, 1):
            say(f"training version {number} of {len(versions)} of {name}")
            _publish(trainer, log, part, onnxruntime, changes | {"epochs = 20": "epochs = 1"}, NO_GATES)
        part.rename(repository)
    return repository


def _publish(
    trainer: Path, folder: Path, repository: Path, onnxruntime: str, changes: dict[str, str], more: str = ""
) -> None:
    """Publishes a version by the demo's pipeline with these texts in place of others, on the log in `folder`."""
    text = (ROOT / "trainer/pipelines/demo.toml").read_text(encoding="utf-8")
    for old, new in changes.items():
        if text.count(old) != 1:
            raise LoadError(f"the demo's pipeline has {text.count(old)} times `{old}`")
        text = text.replace(old, new)
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


USER = 'name = "user_id", column = "user_id", encoding ='
NO_GATES = """[gates]
accuracy = 0.0
max_calibration_error = 1.0
max_auc_drop = 1.0
max_latency_ms = 1000.0
"""
TIMEOUT_S = 600


if __name__ == "__main__":
    # For whoever needs a version and no load: `repository.py TARGET` prints the newest one's folder.
    target = Path(sys.argv[1]).resolve()
    (target / "loadtest").mkdir(parents=True, exist_ok=True)
    trainer, library = target / "release/millrace-trainer", os.environ["MILLRACE_ONNXRUNTIME"]
    print(make(trainer, target / "loadtest", library) / MODEL / str(VERSIONS))
