#!/bin/sh
# Prints the path of an ONNX Runtime library, after fetching it from PyPI into target/ where it is not there yet.
# ORT_DYLIB_PATH, where set, wins. The wheels are pinned by version and SHA-256; only the library is taken from them.
set -eu

version=1.32.0
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
folder=$target/onnxruntime/$version
library=$folder/libonnxruntime.so.$version

if [ -n "${ORT_DYLIB_PATH:-}" ]; then
    echo "$ORT_DYLIB_PATH"
    exit
fi
if [ ! -f "$library" ]; then
    case $(uname -m) in
        x86_64) sha256=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d ;;
        aarch64) sha256=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c ;;
        *) echo "no ONNX Runtime wheel for $(uname -m): set ORT_DYLIB_PATH to a library of version 1.22 or newer" >&2; exit 1 ;;
    esac
    echo "fetching ONNX Runtime $version from PyPI into $folder" >&2
    mkdir -p "$folder"
    echo "onnxruntime==$version --hash=sha256:$sha256" > "$folder/requirements.txt"
    # The library inside is the same for every Python, so one wheel is named, whatever Python runs this.
    python3 -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 --platform "manylinux_2_28_$(uname -m)" \
        --dest "$folder" --requirement "$folder/requirements.txt" >&2
    # Extracted under another name and renamed, so that an interrupted run never leaves half a library behind.
    python3 - "$folder" "libonnxruntime.so.$version" <<'PYTHON'
import glob, os, shutil, sys, zipfile
folder, name = sys.argv[1:]
[wheel] = glob.glob(os.path.join(folder, "*.whl"))
with zipfile.ZipFile(wheel) as archive, archive.open("onnxruntime/capi/" + name) as source:
    with open(os.path.join(folder, "part"), "wb") as target:
        shutil.copyfileobj(source, target)
os.rename(os.path.join(folder, "part"), os.path.join(folder, name))
os.remove(wheel)
PYTHON
fi
echo "$library"
