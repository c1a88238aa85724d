#!/bin/sh
# Packs what checks and measures the engine on a GPU into one archive, for a machine with an NVIDIA driver, libnvrtc and
# libcublasLt, and neither Rust nor a network: the program, ONNX Runtime, kernels for sm_80 to sm_90, versions of models, and the
# server with what loads it over HTTP. There, `OUT=folder ./run.sh` writes gpu-check.json into that folder. It takes no GPU here.
# The last line of output is one JSON object.
set -eu
cd "$(dirname "$0")/.."
MILLRACE_ONNXRUNTIME=${MILLRACE_ONNXRUNTIME:-$(deploy/onnxruntime.sh)}
MILLRACE_NVRTC=${MILLRACE_NVRTC:-$(deploy/nvrtc.sh)}
export MILLRACE_ONNXRUNTIME
target=${CARGO_TARGET_DIR:-target}
programs=$target/release
bundle=$target/gpu-check
oha=$target/tools/bin/oha
missing() {
    echo "$1" >&2
    exit 1
}
wrk=$(command -v wrk) || missing "wrk is not on PATH: install Debian's package \`wrk\`"
[ -x "$oha" ] || missing "$oha is not there: run \`make $oha\`"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo build --release --quiet --package millrace --package millrace-trainer --bin gpu-check --bin millrace \
    --bin millrace-trainer
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

# The server and what loads it. Programs lie as in Cargo's target folder, where the load tests look for them.
mkdir -p "$bundle/target/release" "$bundle/target/tools/bin" "$bundle/target/lib" "$bundle/loadtest"
strip -o "$bundle/target/release/millrace" "$programs/millrace"
strip -o "$bundle/target/tools/bin/oha" "$oha"
# wrk with the libraries that another distribution may not have, which nobody but wrk is to find.
cp "$wrk" "$bundle/target/lib/wrk"
ldd "$wrk" | sed -n 's/.*lib\(luajit\|ssl\|crypto\).* => \([^ ]*\).*/\2/p' | while read -r library; do
    cp -L "$library" "$bundle/target/lib/"
done
cat > "$bundle/target/tools/bin/wrk" <<'WRK'
#!/bin/sh
lib=$(dirname "$0")/../../lib
LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$lib/wrk" "$@"
WRK
chmod +x "$bundle/target/tools/bin/wrk"
cp loadtest/*.py loadtest/*.lua "$bundle/loadtest/"
cp bench/gpu_peers.py "$bundle/"
python3 loadtest/repository.py "$target" >&2
cp -r "$target/loadtest/models" "$bundle/models"

cat > "$bundle/run.sh" <<'RUN'
#!/bin/sh
# Checks and measures the engine on this machine's GPU, each step in a process of its own with a time limit; what was found is
# in $OUT/gpu-check.json (OUT is this folder where it is not set), written anew after every step. LIMIT is how many seconds
# there are for all (540), TABLE_ROWS how many rows the large tables have (10000000). The last step is over HTTP, takes
# HTTP_SECONDS at most (150) and swaps tables of TABLE_GB (10); SKIP_HTTP=1 leaves it out, ONLY_HTTP=1 the others, and
# ENGINE=onnx-cpu tries it where there is no GPU. SKIP_PEERS=1 leaves PyTorch and ONNX Runtime out. The exit status is 1 where something is off.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
out=${OUT:-$here}
parts=$out/gpu-check-steps
mkdir -p "$parts" && rm -f "$parts"/* || exit 1
cp -r "$here/kernels" "$parts.kernels" 2>/dev/null && kernels=$parts.kernels || kernels=$here/kernels
end=$(($(date +%s) + ${LIMIT:-540}))
# What the last step may take is not for those before it.
http_seconds=${HTTP_SECONDS:-150}
[ -n "${SKIP_HTTP:-}" ] || [ -n "${ONLY_HTTP:-}" ] || end=$((end - http_seconds))

# Folders that may have CUDA's libraries: the toolkit's, and those of packages for Python.
folders() {
    ls -d /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib 2>/dev/null
    for python in python3 python; do
        "$python" -c 'import site, sys
for path in dict.fromkeys(sys.path + site.getsitepackages()): print(path)' 2>/dev/null |
            while read -r path; do ls -d "$path"/nvidia/*/lib 2>/dev/null; done
    done
    ls -d /opt/*/lib/python3*/site-packages/nvidia/*/lib /opt/*/*/lib/python3*/site-packages/nvidia/*/lib \
        /usr/lib/python3*/*-packages/nvidia/*/lib 2>/dev/null
}
# Behind what is there already, so that nothing hides the driver's folder.
append() {
    for folder in $(folders); do
        if [ -e "$folder/$1" ]; then
            echo "$1: $(readlink -f "$folder/$1")"
            case ":${LD_LIBRARY_PATH:-}:" in
                *":$folder:"*) ;;
                *) LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder ;;
            esac
            return
        fi
    done
    echo "$1: in none of the folders that were searched"
}
# Not through a pipe, which would lose what is appended.
{
    append libnvrtc.so.13
    append libcublasLt.so.13
    nvidia-smi -L
    nvidia-smi --query-gpu=driver_version,clocks.max.sm,power.limit,memory.total --format=csv,noheader
} >"$out/gpu-check-machine.txt" 2>&1
export LD_LIBRARY_PATH
cat "$out/gpu-check-machine.txt"

merge() {
    "$here/gpu-check" merge "$parts" --out "$out/gpu-check.json"
}
# limited NAME SECONDS COMMAND...: a step, whose report is $parts/NAME.json.
limited() {
    name=$1 seconds=$2
    shift 2
    left=$((end - $(date +%s)))
    [ "$left" -lt "$seconds" ] && seconds=$left
    if [ "$seconds" -gt 0 ]; then
        timeout -k 5 "$seconds" "$@" 2>"$parts/$name.log"
        status=$?
    else
        status=skipped
        echo "no time was left" >"$parts/$name.log"
    fi
    echo "$status" >"$parts/$name.status"
    echo "$name: status $status" >&2
    tail -n 3 "$parts/$name.log" >&2
    merge >/dev/null
}
# step NAME SECONDS ARGUMENT...
step() {
    name=$1 seconds=$2
    shift 2
    limited "$name" "$seconds" "$here/gpu-check" "$@" --cache "$kernels" --out "$parts/$name.json"
}
# peers SHAPE STEP: PyTorch and, where Python has it with CUDA, ONNX Runtime, beside what was found in STEP.
peers() {
    limited "7-peers-$1" 75 python3 "$here/gpu_peers.py" "$1" --precision half --table-rows "${TABLE_ROWS:-10000000}" \
        --ours "$parts/$2.json" --out "$parts/7-peers-$1.json"
}
# http SECONDS: the server under load. Its figures are in the report, so what it prints is not shown twice.
http() {
    left=$((end - $(date +%s)))
    seconds=$1
    [ "$left" -lt "$seconds" ] && seconds=$left
    (
        PATH=$here/target/tools/bin:$PATH
        export PATH
        limited 8-http "$seconds" python3 "$here/loadtest/run_gpu.py" --target "$here/target" --models "$here/models" \
            --onnxruntime "$here/libonnxruntime.so" --kernels "$kernels" --work "$parts.http" --engine "${ENGINE:-cuda}" \
            --table-gb "${TABLE_GB:-10}" --limit "$seconds" --out "$parts/8-http.json" >/dev/null
    )
    rm -f "$parts.http"/bodies*
}
steps() {
    step 1-kernels 60 kernels "$@"
    if [ "$(cat "$parts/1-kernels.status")" != 0 ]; then
        # What the kernels do that they should not, by CUDA's own tool where it is there.
        for sanitizer in /usr/local/cuda*/bin/compute-sanitizer; do
            [ -x "$sanitizer" ] && timeout -k 5 60 "$sanitizer" --print-limit 20 "$here/gpu-check" kernels --cache "$kernels" \
                --out "$parts/sanitizer-report" >"$out/compute-sanitizer.log" 2>&1 && break
        done
    fi
    table=--table-rows=${TABLE_ROWS:-10000000}
    step 2-ranking-half 90 shape ranking --precision half "$table" "$@"
    step 3-wide_and_deep-single 40 version "$here/versions/wide_and_deep" --onnxruntime "$here/libonnxruntime.so" "$@"
    step 4-ranking-single 90 shape ranking --precision single "$table" "$@"
    step 5-nvidia-half 90 shape nvidia --precision half "$table" "$@"
    for precision in half single; do
        for version in dcn_v2 large wide_and_deep; do
            [ "$version-$precision" = wide_and_deep-single ] && continue
            step "6-$version-$precision" 40 version "$here/versions/$version" --precision "$precision" \
                --onnxruntime "$here/libonnxruntime.so" "$@"
        done
    done
    step 7-nvidia-single 90 shape nvidia --precision single "$table" "$@"
    if [ -z "${SKIP_PEERS:-}" ] && python3 -c 'import torch' 2>/dev/null; then
        peers ranking 2-ranking-half
        peers nvidia 5-nvidia-half
    fi
}
[ -n "${ONLY_HTTP:-}" ] || steps "$@"
if [ -z "${SKIP_HTTP:-}" ]; then
    [ -n "${ONLY_HTTP:-}" ] || end=$((end + http_seconds))
    http "$http_seconds"
fi
rm -rf "$parts.kernels"
merge
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
