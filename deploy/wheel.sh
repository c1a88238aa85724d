#!/bin/sh
# Takes files out of a wheel of PyPI's: `wheel.sh NAME VERSION PLATFORM SHA256 FILE...` fetches it where they are not there
# yet, and prints the folder below target/ that has them. Each FILE is a path in the wheel, and lies in the folder by its
# last part. The wheel may be of any platform and Python: what is taken is not Python's.
set -eu

name=$1 version=$2 platform=$3 sha256=$4
shift 4
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
folder=$target/wheels/$name/$version

is_there() {
    for file in "$@"; do
        [ -f "$folder/${file##*/}" ] || return 1
    done
}
if ! is_there "$@"; then
    echo "fetching $name $version from PyPI into $folder" >&2
    mkdir -p "$folder"
    echo "$name==$version --hash=sha256:$sha256" > "$folder/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 --platform "$platform" \
        --dest "$folder" --requirement "$folder/requirements.txt" >&2
    # Extracted under another name and renamed, so that an interrupted run never leaves half a file behind.
    python3 - "$folder" "$@" <<'PYTHON'
import glob, os, shutil, sys, zipfile
folder, *files = sys.argv[1:]
[wheel] = glob.glob(os.path.join(folder, "*.whl"))
part = os.path.join(folder, "part")
with zipfile.ZipFile(wheel) as archive:
    for file in files:
        with archive.open(file) as source, open(part, "wb") as target:
            shutil.copyfileobj(source, target)
        os.rename(part, os.path.join(folder, os.path.basename(file)))
os.remove(wheel)
PYTHON
fi
echo "$folder"
