#!/bin/sh
# Builds real TensorRT engines, with or without a GPU: the tests that need the library, then a model trained on a
# small synthetic shop's log and exported in both precisions, whose record is held against the files. The last line of output is one JSON
# object with versions, sizes and seconds.
set -eu
cd "$(dirname "$0")/.."
MILLRACE_ONNXRUNTIME=${MILLRACE_ONNXRUNTIME:-$(deploy/onnxruntime.sh)}
MILLRACE_TENSORRT=$(deploy/tensorrt.sh)
LIBCLANG_PATH=${LIBCLANG_PATH:-$(deploy/libclang.sh)}
MILLRACE_TENSORRT_REQUIRED=1
export MILLRACE_ONNXRUNTIME MILLRACE_TENSORRT LIBCLANG_PATH MILLRACE_TENSORRT_REQUIRED
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo test --quiet --package millrace-tensorrt --test tensorrt -- real::
cargo test --quiet --package millrace-trainer --features tensorrt engines
cargo test --quiet --package millrace --features tensorrt --lib tensorrt

trainer() { cargo run --quiet --package millrace-trainer --features tensorrt -- "$@"; }
trainer synth --users 300 --items 300 --events 20000 --out "$work/log.parquet"
trainer train trainer/pipelines/demo.toml --data "$work" --artifact "$work/artifact"
line=$(trainer export --fp16 --tensorrt --artifact "$work/artifact" | tail -n 1)

# In another language than what wrote it: the record, the files and the line have to say the same.
python3 - "$work/artifact/version" "$line" <<'PYTHON'
import hashlib, json, os, sys, tomllib
folder, line = sys.argv[1], json.loads(sys.argv[2])
with open(os.path.join(folder, "engines.toml"), "rb") as file:
    record = tomllib.load(file)

def check(name, expected):
    with open(os.path.join(folder, name), "rb") as file:
        content = file.read()
    assert len(content) == expected["bytes"], f"{name}: {len(content)} bytes"
    assert hashlib.sha256(content).hexdigest() == expected["sha256"], f"{name}: another SHA-256"

assert [engine["file"] for engine in record["engine"]] == ["model.engine", "model.fp16.engine"], record
for engine, said in zip(record["engine"], line["engines"], strict=True):
    check(engine["file"], engine["record"])
    for source, expected in engine["sources"].items():
        check(source, expected)
    assert engine["inputs"] == [{"name": "ids", "dtype": "i32", "shape": [-1, 2]}], engine["inputs"]
    assert engine["outputs"] == [{"name": "probability", "dtype": "f32", "shape": [-1, 1]}], engine["outputs"]
    assert engine["profiles"] == [{"ids": {"min": [1, 2], "opt": [256, 2], "max": [4096, 2]}}], engine["profiles"]
    assert said["file"] == engine["file"] and said["bytes"] == engine["record"]["bytes"], said
assert (line["flavour"], line["version"]) == (record["flavour"], record["version"]), line
PYTHON
echo "$line"
