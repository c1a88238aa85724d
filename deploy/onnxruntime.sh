#!/bin/sh
# Prints the path of an ONNX Runtime library, after fetching it from PyPI where it is not there yet. ORT_DYLIB_PATH, where
# set, wins. The library inside is the same for every Python, so one wheel is named, whatever Python runs this.
set -eu

version=1.32.0
if [ -n "${ORT_DYLIB_PATH:-}" ]; then
    echo "$ORT_DYLIB_PATH"
    exit
fi
case $(uname -m) in
    x86_64) sha256=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d ;;
    aarch64) sha256=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c ;;
    *) echo "no ONNX Runtime wheel for $(uname -m): set ORT_DYLIB_PATH to a library of version 1.22 or newer" >&2; exit 1 ;;
esac
folder=$("$(dirname "$0")/wheel.sh" onnxruntime "$version" "manylinux_2_28_$(uname -m)" "$sha256" \
    "onnxruntime/capi/libonnxruntime.so.$version")
echo "$folder/libonnxruntime.so.$version"
