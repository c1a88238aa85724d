"""Two replicas behind nginx, with a real Prometheus and Alertmanager: `make replicas-check`, or see README.md beside this file.

Rows are scored through nginx with receipts, and their labels come back through it, so most go to a replica that did not
answer. What the replicas then say of their answers is held against what was sent, and added up in Prometheus by the rules of
deploy/prometheus; labels are such that the accuracy is too low, which must reach a webhook through Alertmanager. The last
line is one JSON object. The status is 1 where something is not as it should be.
"""

import argparse
import bisect
import json
import math
import random
import secrets
import shutil
import sys
import tempfile
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import command
import servers
import webhook
from machine import ROOT
from plan import Programs
from protocol import MODEL
from runs import LoadError, say
from servers import HOST, Millrace

REQUESTS = 400
ROWS = 10
"""Of a request, as many as it has labels."""
WRONG = 0.4
"""The share of labels that are not what the score says."""
THRESHOLD = 0.5
STEP_S, MATURITY_S, WINDOW_S = 1, 5, 600
WAIT_S = 60
TOLERANCE = 0.002
TOOLS = ("nginx", "prometheus", "prometheus-alertmanager")
PATHS = "/usr/sbin:/usr/bin:/usr/local/bin"

CONFIG = f"""
defaults = {{ quality_window_ms = {WINDOW_S * 1000}, quality_step_ms = {STEP_S * 1000}, quality_maturity_ms = {MATURITY_S * 1000} }}
"""

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream replicas {{ {upstreams} }}
    server {{
        listen {host}:{port};
        location / {{ proxy_pass http://replicas; add_header x-replica $upstream_addr always; }}
    }}
}}
"""

PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}
scrape_configs: [{{job_name: millrace, static_configs: [{{targets: [{targets}]}}]}}]
"""

ALERTMANAGER = """
route: {{receiver: shop, group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}
receivers: [{{name: shop, webhook_configs: [{{url: 'http://{host}:{port}/', send_resolved: false}}]}}]
"""


@dataclass
class Results:
    """What was found."""

    found: dict[str, object] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def expect(self, name: str, found: float, expected: float, tolerance: float = 0.0) -> None:
        """Notes a figure, and that it is not what it should be."""
        self.found[name] = round(found, 6)
        if not abs(found - expected) <= tolerance:
            self.failures.append(f"{name} is {found}, and should be {expected}")

    def summary(self) -> dict[str, object]:
        """The figures, for programs."""
        return self.found | {"passed": not self.failures}

    def table(self) -> str:
        """The figures, for people."""
        return "\n".join(f"{name:40} {value}" for name, value in self.found.items())


@dataclass
class Labelled:
    """A row with what became of it, the replica that scored it, and the one that took the label."""

    score: float
    label: bool
    by: str
    to: str


def main() -> int:
    """Runs what the command line asks for."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    return command.run(_check)


def _check() -> Results:
    tools = {tool: shutil.which(tool, path=PATHS) for tool in TOOLS}
    if missing := [tool for tool, path in tools.items() if path is None]:
        raise LoadError(f"{', '.join(missing)} cannot be found: install Debian's nginx-light, prometheus, prometheus-alertmanager")
    programs, results = Programs.prepare(), Results()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "receipt.keys").write_text(secrets.token_hex(32) + "\n", encoding="ascii")
        (folder / "receipt.keys").chmod(0o600)
        replicas = [stack.enter_context(_replica(programs, folder, name)) for name in ("a", "b")]
        hook = stack.enter_context(webhook.listen())
        front = stack.enter_context(_nginx(str(tools["nginx"]), folder, replicas))
        manager = stack.enter_context(_alertmanager(str(tools["prometheus-alertmanager"]), folder, hook.port))
        ask = stack.enter_context(_prometheus(str(tools["prometheus"]), folder, replicas, manager))
        say("everything is started")
        rows = _send(front)
        _judge(results, rows, replicas, ask, hook)
    return results


@contextmanager
def _replica(programs: Programs, folder: Path, name: str) -> Iterator[Millrace]:
    config = folder / f"{name}.toml"
    keys, log = json.dumps(str(folder / "receipt.keys")), json.dumps(str(folder / f"feedback-{name}"))
    config.write_text(f"receipt_keys = {keys}\nfeedback_dir = {log}\n{CONFIG}", encoding="utf-8")
    binary = programs.target / "release/millrace"
    log_file = folder / f"{name}.log"
    with servers.millrace(binary, programs.models, programs.onnxruntime, config, log_file, name) as server:
        yield server


@contextmanager
def _nginx(program: str, folder: Path, replicas: list[Millrace]) -> Iterator[int]:
    port, config = servers.free_port(), folder / "nginx.conf"
    upstreams = " ".join(f"server {HOST}:{replica.port};" for replica in replicas)
    config.write_text(NGINX.format(folder=folder, upstreams=upstreams, host=HOST, port=port), encoding="ascii")
    log = folder / "nginx.log"
    with servers.process([program, "-p", str(folder), "-c", str(config)], log) as running:
        servers.wait(running, log, lambda: servers.call(port, "GET", "/api/predict/" + MODEL).status == 200)
        yield port
        servers.terminate(running)


@contextmanager
def _alertmanager(program: str, folder: Path, hook: int) -> Iterator[int]:
    port, config, log = servers.free_port(), folder / "alertmanager.yml", folder / "alertmanager.log"
    config.write_text(ALERTMANAGER.format(host=HOST, port=hook), encoding="ascii")
    arguments = [
        f"--config.file={config}",
        f"--storage.path={folder / 'alerts'}",
        f"--web.listen-address={HOST}:{port}",
        "--cluster.listen-address=",
    ]
    with servers.process([program, *arguments], log) as running:
        servers.wait(running, log, lambda: servers.call(port, "GET", "/-/ready").status == 200)
        yield port
        servers.terminate(running)


Ask = Callable[[str], dict[str, float]]
"""What Prometheus says of an expression, by the replica or the version that it is of."""


@contextmanager
def _prometheus(program: str, folder: Path, replicas: list[Millrace], manager: int) -> Iterator[Ask]:
    port, config, log = servers.free_port(), folder / "prometheus.yml", folder / "prometheus.log"
    rules = (ROOT / "deploy/prometheus/millrace.rules.yml").read_text(encoding="utf-8")
    # Nobody waits ten minutes here.
    (folder / "rules.yml").write_text(rules.replace("for: 10m", "for: 3s"), encoding="utf-8")
    targets = ", ".join(f"'{HOST}:{replica.management_port}'" for replica in replicas)
    config.write_text(PROMETHEUS.format(alertmanager=f"{HOST}:{manager}", targets=targets), encoding="ascii")
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address={HOST}:{port}",
    ]

    def ask(expression: str) -> dict[str, float]:
        query = urllib.parse.urlencode({"query": expression})
        answer = servers.call(port, "GET", f"/api/v1/query?{query}")
        if answer.status != 200:
            raise LoadError(f"Prometheus: status {answer.status}: {answer.body[:300]!r}")
        found = json.loads(answer.body)["data"]["result"]
        return {one["metric"].get("instance", ""): float(one["value"][1]) for one in found}

    with servers.process([program, *arguments], log) as running:
        servers.wait(running, log, lambda: servers.call(port, "GET", "/-/ready").status == 200)
        yield ask
        servers.terminate(running)


def _send(front: int) -> list[Labelled]:
    draw, rows = random.Random(1), []
    headers = {"content-type": "application/json", "x-receipt": "true"}
    for _ in range(REQUESTS):
        body = json.dumps({"input": [[draw.randint(1, 1000), draw.randint(1, 1000)] for _ in range(ROWS)]})
        answer = servers.call(front, "POST", f"/api/predict/{MODEL}", body, headers)
        if answer.status != 200:
            raise LoadError(f"status {answer.status}: {answer.body[:300]!r}")
        scores, receipt = json.loads(answer.body)["output"], answer.headers["x-receipt"]
        labels = [(score >= THRESHOLD) != (draw.random() < WRONG) for score in scores]
        events = [{"receipt": receipt, "row": row, "label": int(label)} for row, label in enumerate(labels)]
        # To either replica, by chance: nginx takes them in turn, and the answers came from both.
        if draw.random() < 0.5:
            servers.call(front, "GET", f"/api/predict/{MODEL}")
        told = servers.call(front, "POST", "/api/feedback", json.dumps({"events": events}))
        if told.status != 200 or json.loads(told.body)["accepted"] != ROWS:
            raise LoadError(f"status {told.status}: {told.body[:300]!r}")
        by, to = answer.headers["x-replica"], told.headers["x-replica"]
        rows += [Labelled(score, label, by, to) for score, label in zip(scores, labels, strict=True)]
    return rows


def _judge(results: Results, rows: list[Labelled], replicas: list[Millrace], ask: Ask, hook: webhook.Hook) -> None:
    total, mature = len(rows), 'window="mature"'
    _eventually(lambda: sum(ask(f'millrace_live_rows{{{mature}, of="labelled"}}').values()) >= total)
    _eventually(lambda: hook.has_fired(alertname="MillraceAccuracyLow"))
    results.found["labels_of_the_other_replica"] = sum(row.by != row.to for row in rows)
    if not 0.2 * total < sum(row.by != row.to for row in rows) < total:
        results.failures.append("labels did not go to both replicas")
    for kind in ("predicted", "labelled"):
        expression = f'sum(millrace_live_rows{{{mature}, of="{kind}"}})'
        results.expect(f"{kind} in Prometheus", ask(expression)[""], total)
    right = sum((row.score >= THRESHOLD) == row.label for row in rows)
    results.expect("correct in Prometheus", ask(f'sum(millrace_live_rows{{{mature}, of="correct"}})')[""], right)
    results.expect("accuracy by the rule", ask("millrace:live_accuracy")[""], right / total, 1e-9)
    taken = defaultdict(list)
    for row in rows:
        taken[row.to].append(row)
    for replica in replicas:
        mine = taken[f"{HOST}:{replica.port}"]
        instance = f"{HOST}:{replica.management_port}"
        live = lambda measure: ask(f'millrace_live_quality{{{mature}, measure="{measure}"}}')[instance]  # noqa: E731, B023
        accuracy = sum((row.score >= THRESHOLD) == row.label for row in mine) / len(mine)
        results.found[f"labels of {replica.name}"] = len(mine)
        results.expect(f"accuracy of {replica.name}", live("accuracy"), accuracy, TOLERANCE)
        results.expect(f"AUC of {replica.name}", live("auc"), _auc(mine), TOLERANCE)
    fired = sorted({alert["labels"]["alertname"] for alert in hook.alerts})
    results.found["alerts at the webhook"] = ", ".join(fired)
    if "MillraceAccuracyLow" not in fired:
        results.failures.append("MillraceAccuracyLow did not reach the webhook")


def _auc(rows: list[Labelled]) -> float:
    """The share of pairs of a row that happened and one that did not in which the first has the higher score."""
    negatives = sorted(row.score for row in rows if not row.label)
    positives = [row.score for row in rows if row.label]
    if not negatives or not positives:
        return math.nan
    below = sum(bisect.bisect_left(negatives, score) + bisect.bisect_right(negatives, score) for score in positives)
    return below / 2 / len(negatives) / len(positives)


def _eventually(holds: Callable[[], bool]) -> None:
    """Waits for it; what does not become true is found by whoever looks next."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and not holds():
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
