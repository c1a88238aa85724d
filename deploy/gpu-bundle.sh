#!/bin/sh
# Packs what checks and measures the engine on a GPU into one archive, for a machine with an NVIDIA driver, libnvrtc and
# libcublasLt, and neither Rust nor a network: the program, ONNX Runtime, kernels for sm_80 to sm_90, and versions of models. There,
# `./run.sh` writes gpu-check.json. It takes no GPU here. The last line of output is one JSON object.
set -eu
cd "$(dirname "$0")/.."
MILLRACE_ONNXRUNTIME=${MILLRACE_ONNXRUNTIME:-$(deploy/onnxruntime.sh)}
MILLRACE_NVRTC=${MILLRACE_NVRTC:-$(deploy/nvrtc.sh)}
export MILLRACE_ONNXRUNTIME
target=${CARGO_TARGET_DIR:-target}
programs=$target/release
bundle=$target/gpu-check
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo build --release --quiet --package millrace --package millrace-trainer --bin gpu-check --bin millrace-trainer
rm -rf "$bundle"
mkdir -p "$bundle/versions"
strip -o "$bundle/gpu-check" "$programs/gpu-check"
cp "$MILLRACE_ONNXRUNTIME" "$bundle/libonnxruntime.so"
for architecture in sm_80 sm_86 sm_89 sm_90; do
    kernels=$(LD_LIBRARY_PATH=$MILLRACE_NVRTC "$programs/gpu-check" compile \
        --architecture "$architecture" --cache "$bundle/kernels")
done

# The demo's model, cross layers before it, and layers that are worth a GPU.
"$programs/millrace-trainer" synth --users 1000 --items 1000 --events 20000 --out "$work/log.parquet" >&2
version() {
    sed "$2" trainer/pipelines/demo.toml > "$work/$1.toml"
    "$programs/millrace-trainer" train "$work/$1.toml" --data "$work" --artifact "$work/$1" >&2
    cp -r "$work/$1/version" "$bundle/versions/$1"
}
version wide_and_deep 's/^epochs = .*/epochs = 2/'
version dcn_v2 's/^epochs = .*/epochs = 2\ncross_layers = 3/'
version large 's/^epochs = .*/epochs = 1/; s/^embedding_dimension = .*/embedding_dimension = 64/
    s/^hidden_units = .*/hidden_units = [1024, 512, 256]/'

cat > "$bundle/run.sh" <<'RUN'
#!/bin/sh
# Checks and measures the engine on this machine's GPU; gpu-check.json has what was found. LD_LIBRARY_PATH must lead to
# libnvrtc and libcublasLt where the system does not know them.
cd "$(dirname "$0")" || exit 1
exec ./gpu-check run --onnxruntime ./libonnxruntime.so --cache kernels --out gpu-check.json versions/* "$@"
RUN
chmod +x "$bundle/run.sh"
tar -C "$target" -czf "$target/gpu-check.tar.gz" gpu-check

python3 - "$target/gpu-check.tar.gz" "$kernels" <<'PYTHON'
import json, os, sys, tarfile
archive, kernels = sys.argv[1:]
bytes_ = os.path.getsize(archive)
assert bytes_ <= 60 * 10**6, f"{bytes_} bytes are more than anybody wants to carry"
with tarfile.open(archive) as tar:
    files = sum(member.isfile() for member in tar)
print(json.dumps({"archive": archive, "files": files, "bytes": bytes_, "sm_90_kernels": int(kernels)}))
PYTHON
