#!/bin/sh
# Prints the folder of a libclang, which bindings to C headers are made with, after fetching it from PyPI into target/
# where it is not there yet. LIBCLANG_PATH, where set, wins. The wheels are pinned by version and SHA-256.
set -eu

version=18.1.1
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
folder=$target/libclang/$version

if [ -n "${LIBCLANG_PATH:-}" ]; then
    echo "$LIBCLANG_PATH"
    exit
fi
if [ ! -f "$folder/libclang.so" ]; then
    case $(uname -m) in
        x86_64) platform=manylinux2010_x86_64 sha256=c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b ;;
        aarch64) platform=manylinux2014_aarch64 sha256=54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592 ;;
        *) echo "no libclang wheel for $(uname -m): set LIBCLANG_PATH to the folder of one" >&2; exit 1 ;;
    esac
    echo "fetching libclang $version from PyPI into $folder" >&2
    mkdir -p "$folder"
    echo "libclang==$version --hash=sha256:$sha256" > "$folder/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
        --platform "$platform" --dest "$folder" --requirement "$folder/requirements.txt" >&2
    # Extracted under another name and renamed, so that an interrupted run never leaves half a library behind.
    python3 - "$folder" <<'PYTHON'
import glob, os, shutil, sys, zipfile
[folder] = sys.argv[1:]
[wheel] = glob.glob(os.path.join(folder, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    [name] = [name for name in archive.namelist() if name.endswith("/clang/native/libclang.so")]
    with archive.open(name) as source, open(os.path.join(folder, "part"), "wb") as target:
        shutil.copyfileobj(source, target)
os.rename(os.path.join(folder, "part"), os.path.join(folder, "libclang.so"))
os.remove(wheel)
PYTHON
fi
echo "$folder"
