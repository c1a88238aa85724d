#!/bin/sh
# A run of the trainer on a real MLflow server from PyPI (some 850 MB of packages below target/), read back by MLflow's
# own client. The last line of output is one JSON object.
set -eu
cd "$(dirname "$0")/.."
MILLRACE_ONNXRUNTIME=${MILLRACE_ONNXRUNTIME:-$(deploy/onnxruntime.sh)}
export MILLRACE_ONNXRUNTIME
target=${CARGO_TARGET_DIR:-target}
version=3.17.2
tools=$target/tools/mlflow
if [ "$(cat "$tools/version" 2>/dev/null)" != "$version" ]; then
    python3 -m venv --clear "$tools"
    "$tools/bin/pip" install --quiet "mlflow==$version"
    echo "$version" >"$tools/version"
fi
work=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# In a process group of its own, since the server's workers outlive it otherwise.
setsid "$tools/bin/mlflow" server --host 127.0.0.1 --port "$port" --workers 1 --backend-store-uri "sqlite:///$work/mlflow.db" \
    --artifacts-destination "$work/artifacts" >"$work/server.log" 2>&1 &
server=$!
trap 'kill -- -"$server" 2>/dev/null || true; rm -rf "$work"' EXIT
MLFLOW_TRACKING_URI=http://127.0.0.1:$port
for _ in $(seq 120); do
    if python3 -c "import urllib.request; urllib.request.urlopen('$MLFLOW_TRACKING_URI/health')" 2>/dev/null; then break; fi
    kill -0 "$server" || { cat "$work/server.log" >&2; exit 1; }
    sleep 0.5
done

trainer() { cargo run --quiet --package millrace-trainer -- "$@"; }
trainer synth --users 300 --items 300 --events 20000 --out "$work/log.parquet"
export MLFLOW_TRACKING_URI
# Twice from training to publication, in one command and in two.
trainer pipeline trainer/pipelines/demo.toml --data "$work" --repository "$work/models" --artifact "$work/first"
trainer train trainer/pipelines/demo.toml --data "$work" --artifact "$work/second"
trainer publish trainer/pipelines/demo.toml --data "$work" --repository "$work/models" --artifact "$work/second"

"$tools/bin/python" - "$work" <<'PYTHON'
import json, os, pathlib, sys
import mlflow
from mlflow.tracking import MlflowClient

work, model = pathlib.Path(sys.argv[1]), "recommendation_model"
client = MlflowClient()
experiment = client.get_experiment_by_name(model)
runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
assert len(runs) == 2, runs
sent = 0
for number, name in [("1", "first"), ("2", "second")]:
    folder = work / name
    registered = client.get_model_version(model, number)
    assert registered.status == "READY" and registered.tags["millrace.version"] == number, registered
    run = runs[registered.run_id]
    assert run.info.status == "FINISHED" and run.data.tags["millrace.version"] == number, run
    assert run.data.params["model.embedding_dimension"] == "16", run.data.params
    summary = json.loads((folder / "summary.json").read_text())
    for key, value in summary["metrics"].items():
        assert run.data.metrics[key] == value, (key, value, run.data.metrics)
    losses = client.get_metric_history(registered.run_id, "epoch_loss")
    assert [loss.step for loss in losses] == list(range(1, summary["epochs"] + 1)), losses
    assert run.data.tags["millrace.gate.golden"].startswith("passed"), run.data.tags
    here = pathlib.Path(mlflow.artifacts.download_artifacts(run_id=registered.run_id, dst_path=str(work / f"got-{name}")))
    files = [file.relative_to(here) for file in here.rglob("*") if file.is_file()]
    version = f"version-{number}"
    for path in files:
        original = work / "models" / model / number / path.relative_to(version) if path.parts[0] == version else folder / path
        assert (here / path).read_bytes() == original.read_bytes(), path
    expected = {"summary.json", "report.html", "report.json", f"{version}/model.onnx", f"{version}/manifest.toml"}
    assert expected <= {str(path) for path in files}, files
    assert not (here / "holdout.json").exists()
    downloaded = mlflow.artifacts.download_artifacts(f"models:/{model}/{number}", dst_path=str(work / f"model-{name}"))
    assert (pathlib.Path(downloaded) / "model.onnx").read_bytes() == (folder / "version/model.onnx").read_bytes()
    sent += len(files)
print(json.dumps({"mlflow": mlflow.__version__, "runs": len(runs), "artifacts": sent, "registered_versions": 2}))
PYTHON
