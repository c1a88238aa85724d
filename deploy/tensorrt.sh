#!/bin/sh
# Prints the folder of TensorRT's libraries, after fetching TensorRT-RTX from PyPI (146 MB) where it is not there yet.
# MILLRACE_TENSORRT, where set, wins. The wheel is ONNX Runtime's provider, which brings TensorRT-RTX along; the libraries
# that build engines are taken from it, 238 MB, and the links that loaders look for are made beside them.
set -eu

version=1.7.1
if [ -n "${MILLRACE_TENSORRT:-}" ]; then
    echo "$MILLRACE_TENSORRT"
    exit
fi
if [ "$(uname -m)" != x86_64 ]; then
    echo "no TensorRT-RTX wheel for $(uname -m): set MILLRACE_TENSORRT to the folder of its libraries" >&2
    exit 1
fi
libraries="libtensorrt_onnxparser_rtx.so libtensorrt_rtx.so"
# shellcheck disable=SC2046,SC2086 # Words, none with a space.
folder=$("$(dirname "$0")/wheel.sh" onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0 manylinux_2_28_x86_64 \
    32f575c633d171b4edf4b53d3bb22b72a6c9c0a850d2982ce9a788a5d40d3298 \
    $(printf "onnxruntime_ep_nv_tensorrt_rtx/%s.$version " $libraries))
for library in $libraries; do
    ln -sf "$library.$version" "$folder/$library.1"
done
echo "$folder"
