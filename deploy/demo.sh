#!/bin/sh
# From nothing to a model that answers: fetches ONNX Runtime, builds, trains on a synthetic shop's log, serves.
# What is there already is used again. MILLRACE_... variables and flags of `millrace serve` apply.
set -eu
cd "$(dirname "$0")/.."
programs=${CARGO_TARGET_DIR:-target}/release
models=${MILLRACE_MODELS_DIR:-models}
work=${CARGO_TARGET_DIR:-target}/demo

say() { printf '\n== %s\n' "$*" >&2; }

say "1/4 ONNX Runtime"
MILLRACE_ONNXRUNTIME=${MILLRACE_ONNXRUNTIME:-$(deploy/onnxruntime.sh)}
export MILLRACE_ONNXRUNTIME
echo "$MILLRACE_ONNXRUNTIME" >&2

say "2/4 building in release mode; the first time takes some minutes"
cargo build --release --package millrace --package millrace-trainer --bin millrace --bin millrace-trainer

if ls "$models"/recommendation_model/*/manifest.toml >/dev/null 2>&1; then
    say "3/4 the model is there already: $models/recommendation_model"
else
    say "3/4 a synthetic shop's log, and a Wide & Deep model trained on it"
    mkdir -p "$work"
    "$programs/millrace-trainer" synth --out "$work/log.parquet"
    "$programs/millrace-trainer" pipeline trainer/pipelines/demo.toml --data "$work" --repository "$models"
fi

say "4/4 serving $models; Ctrl-C ends it"
# Once the server is ready, or never if it ends before. The process of this script becomes the server's.
python3 - $$ "${MILLRACE_LISTEN:-127.0.0.1:8000}" "${MILLRACE_MANAGEMENT_LISTEN:-127.0.0.1:8001}" <<'PYTHON' &
import http.client, os, sys, time, urllib.request
server, listen, management = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
while True:
    time.sleep(0.1)
    try:
        os.kill(server, 0)
        ask(f"http://{management}/readyz", timeout=5)
    except ProcessLookupError:
        sys.exit()
    except (OSError, http.client.HTTPException):
        continue
    break
print(f"""
Try it:

    curl -H 'content-type: application/json' -d '{{"input": [[123, 456]]}}' \\
        http://{listen}/api/predict/recommendation_model
    curl -H 'content-type: application/json' -d '{{"user": 123, "k": 2}}' \\
        http://{listen}/api/recommend/recommendation_model
""", file=sys.stderr)
PYTHON
exec "$programs/millrace" serve --models-dir "$models" "$@"
