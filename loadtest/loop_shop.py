"""The shop of the loop: a synthetic log, the models that are trained on parts of it, and the server's configuration."""

import csv
import json
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import traffic
from machine import ROOT
from protocol import MODEL
from runs import LoadError, say
from servers import HOST
from traffic import Row

USERS, ITEMS = 200, 150
ROWS_PER_SECOND = 1500
DAY_S = 14
"""How long a day of the shop takes."""
ROWS_PER_DAY = ROWS_PER_SECOND * DAY_S
TRAINING_DAYS, SHIFT_DAY, DAYS = 7, 9, 28
"""The days of the log: so many are what version 1 is trained on, after so many tastes shift, and so many are there if need be."""
WINDOW_S, MATURITY_S = 20, 5
LOW, HIGH = 0.70, 0.80
"""The accuracy under which the model is not good enough, and the one that it must have otherwise."""
MIN_LABELS = 500
"""Labels of a version without which nobody decides anything."""
SHARE = 0.3
"""Of the requests, what a version answers that is tried."""
CAPTION = (
    f"A day takes {DAY_S} s. Accuracy is of the answers of {WINDOW_S} s, up to {MATURITY_S} s ago: "
    "their labels have come by then. So it shows late what happens."
)
PIPELINE = ROOT / "trainer/pipelines/loop.toml"

CONFIG = """
receipt_keys = {keys}
feedback_dir = {feedback}
feedback_export = {{ dir = {exported}, label_column = "clicked", time_column = "event_time", interval_ms = 2000 }}
rollout_dir = {rollout}
retrain_dir = {retrain}

[models.{model}]
receipts = true
threshold = 0.5
quality_window_ms = {window_ms}
quality_step_ms = 1000
quality_maturity_ms = {maturity_ms}

[models.{model}.rollout]
enter = "canary"
share = {share}
measure = "accuracy"
margin = 0.01
min_labels = {min_labels}
min_requests = 200
max_latency_ratio = 10.0
max_age_ms = 120000

[models.{model}.alert]
below = {low}
clear = 0.75
min_labels = {min_labels}
hold_ms = 0
webhook = "http://{host}:{hook}/"

[models.{model}.retrain]
command = {command}
dir = {folder}
on_alert = true
cooldown_ms = 60000
max_a_day = 4
timeout_ms = 120000
"""

NO_GATES = """
[gates]
accuracy = 0.0
max_auc_drop = 1.0
max_calibration_error = 1.0
max_latency_ms = 1000.0
"""


@dataclass(frozen=True)
class Shop:
    """A folder with the shop's log, its models, and what servers leave behind."""

    folder: Path
    target: Path
    """Cargo's target folder."""
    onnxruntime: str
    rows: list[Row]

    @staticmethod
    def open() -> "Shop":
        """A new one, in Cargo's target folder."""
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
        onnxruntime = os.environ.get("MILLRACE_ONNXRUNTIME")
        if not onnxruntime:
            raise LoadError("MILLRACE_ONNXRUNTIME must name the library whose path deploy/onnxruntime.sh prints")
        folder = target / "demo-loop"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        keys, log = folder / "receipt.keys", folder / "shop.csv"
        keys.write_text(secrets.token_hex(32), encoding="ascii")
        keys.chmod(0o600)
        size = ["--users", USERS, "--items", ITEMS, "--events", DAYS * ROWS_PER_DAY, "--days", DAYS]
        command = [target / "release/millrace-trainer", "synth", "--out", log, *size, "--shift-at", SHIFT_DAY / DAYS]
        say(_run([str(word) for word in command], onnxruntime).strip())
        return Shop(folder, target, onnxruntime, traffic.read(log))

    @property
    def shift(self) -> int:
        """The moment at which tastes shift, in seconds since 1970."""
        return self.rows[SHIFT_DAY * ROWS_PER_DAY].at

    @property
    def journal(self) -> Path:
        """What the server writes down of its decisions."""
        return self.folder / f"rollout/{MODEL}.jsonl"

    def log(self, name: str, rows: list[Row]) -> None:
        """Writes a log of these rows into a folder of this name, beside an empty one for what servers export."""
        data = self.folder / name
        (data / "exported").mkdir(parents=True)
        with (data / "log.csv").open("w", encoding="ascii", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user_id", "item_id", "event_time", "clicked"])
            writer.writerows([row.user, row.item, row.text, row.clicked] for row in rows)

    def poison(self, until: int) -> None:
        """Writes a log of the two days before `until`, in seconds since 1970, with clicks for no clicks, and a pipeline that no
        gate ends."""
        rows = [row for row in self.rows if until - 2 * traffic.DAY_S <= row.at < until]
        self.log("poisoned", [replace(row, clicked=1 - row.clicked) for row in rows])
        text = PIPELINE.read_text(encoding="utf-8")
        (self.folder / "poisoned.toml").write_text(text + NO_GATES, encoding="utf-8")

    def training(self, name: str, pipeline: Path = PIPELINE) -> list[str]:
        """The command that trains on the log of this name, and on what was exported beside it, and publishes."""
        trainer, models = self.target / "release/millrace-trainer", self.folder / "models"
        return [str(trainer), "pipeline", str(pipeline), "--data", str(self.folder / name), "--repository", str(models)]

    def publish(self, training: list[str]) -> None:
        """Carries such a command out."""
        _run(training, self.onnxruntime)

    def config(self, hook: int) -> str:
        """The server's configuration, with its webhook on this port."""
        paths = {
            "keys": "receipt.keys",
            "feedback": "feedback",
            "exported": "shop/exported",
            "rollout": "rollout",
            "retrain": "retrain",
            "folder": "",
        }
        quoted = {name: json.dumps(str(self.folder / path)) for name, path in paths.items()}
        return CONFIG.format(
            **quoted, model=MODEL, host=HOST, hook=hook, command=json.dumps(self.training("shop")), low=LOW, share=SHARE,
            min_labels=MIN_LABELS, window_ms=WINDOW_S * 1000, maturity_ms=MATURITY_S * 1000,
        )  # fmt: skip


def _run(command: list[str], onnxruntime: str) -> str:
    environment = os.environ | {"MILLRACE_ONNXRUNTIME": onnxruntime}
    output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    if output.returncode != 0:
        raise LoadError(f"{command[0]} {command[1]}: status {output.returncode}: {output.stdout}{output.stderr}")
    return output.stdout
