#!/bin/sh
# Prints the folder of NVRTC, NVIDIA's compiler for kernels, after fetching it from PyPI (90 MB) into target/ where it is
# not there yet. It compiles without a GPU and without a driver. MILLRACE_NVRTC, where set, wins. The wheels are pinned by
# version and SHA-256.
set -eu

version=13.0.88
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
folder=$target/nvrtc/$version

if [ -n "${MILLRACE_NVRTC:-}" ]; then
    echo "$MILLRACE_NVRTC"
    exit
fi
if [ ! -f "$folder/libnvrtc.so.13" ]; then
    case $(uname -m) in
        x86_64) platform=manylinux2014_x86_64 sha256=ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575 ;;
        aarch64) platform=manylinux2014_aarch64 sha256=d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b ;;
        *) echo "no NVRTC wheel for $(uname -m): set MILLRACE_NVRTC to the folder of its libraries" >&2; exit 1 ;;
    esac
    echo "fetching NVRTC $version from PyPI into $folder" >&2
    mkdir -p "$folder"
    echo "nvidia-cuda-nvrtc==$version --hash=sha256:$sha256" > "$folder/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
        --platform "$platform" --dest "$folder" --requirement "$folder/requirements.txt" >&2
    # The library that is looked for above comes last, so that an interrupted run is begun again.
    python3 - "$folder" <<'PYTHON'
import glob, os, shutil, sys, zipfile
[folder] = sys.argv[1:]
[wheel] = glob.glob(os.path.join(folder, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    for library in ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]:
        with archive.open(f"nvidia/cu13/lib/{library}") as source, open(os.path.join(folder, "part"), "wb") as target:
            shutil.copyfileobj(source, target)
        os.rename(os.path.join(folder, "part"), os.path.join(folder, library))
os.remove(wheel)
PYTHON
fi
echo "$folder"
