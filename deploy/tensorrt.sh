#!/bin/sh
# Prints the folder of TensorRT's libraries, after fetching TensorRT-RTX from PyPI into target/ where it is not there
# yet. MILLRACE_TENSORRT, where set, wins. The wheel, 146 MB, is pinned by version and SHA-256; the libraries that
# build engines are taken from it, 238 MB, and the links that loaders look for are made beside them.
set -eu

version=1.7.1
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
folder=$target/tensorrt/$version

if [ -n "${MILLRACE_TENSORRT:-}" ]; then
    echo "$MILLRACE_TENSORRT"
    exit
fi
if [ ! -f "$folder/libtensorrt_rtx.so.1" ]; then
    if [ "$(uname -m)" != x86_64 ]; then
        echo "no TensorRT-RTX wheel for $(uname -m): set MILLRACE_TENSORRT to the folder of its libraries" >&2
        exit 1
    fi
    echo "fetching TensorRT-RTX $version from PyPI into $folder" >&2
    mkdir -p "$folder"
    # The wheel is ONNX Runtime's provider, which brings TensorRT-RTX along.
    echo "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0 --hash=sha256:32f575c633d171b4edf4b53d3bb22b72a6c9c0a850d2982ce9a788a5d40d3298" \
        > "$folder/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
        --platform manylinux_2_28_x86_64 --dest "$folder" --requirement "$folder/requirements.txt" >&2
    # The link that is looked for above comes last, so that an interrupted run is begun again.
    python3 - "$folder" "$version" <<'PYTHON'
import glob, os, shutil, sys, zipfile
folder, version = sys.argv[1:]
[wheel] = glob.glob(os.path.join(folder, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    for library in ["libtensorrt_onnxparser_rtx.so", "libtensorrt_rtx.so"]:
        name = f"{library}.{version}"
        with archive.open("onnxruntime_ep_nv_tensorrt_rtx/" + name) as source:
            with open(os.path.join(folder, name), "wb") as target:
                shutil.copyfileobj(source, target)
        link = os.path.join(folder, f"{library}.1")
        if os.path.lexists(link):
            os.remove(link)
        os.symlink(name, link)
os.remove(wheel)
PYTHON
fi
echo "$folder"
