#!/bin/sh
# Prints the folder of NVRTC, NVIDIA's compiler for kernels, after fetching it from PyPI (90 MB) where it is not there yet. It
# compiles without a GPU and without a driver. MILLRACE_NVRTC, where set, wins.
set -eu

if [ -n "${MILLRACE_NVRTC:-}" ]; then
    echo "$MILLRACE_NVRTC"
    exit
fi
case $(uname -m) in
    x86_64) sha256=ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575 ;;
    aarch64) sha256=d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b ;;
    *) echo "no NVRTC wheel for $(uname -m): set MILLRACE_NVRTC to the folder of its libraries" >&2; exit 1 ;;
esac
exec "$(dirname "$0")/wheel.sh" nvidia-cuda-nvrtc 13.0.88 "manylinux2014_$(uname -m)" "$sha256" \
    nvidia/cu13/lib/libnvrtc-builtins.so.13.0 nvidia/cu13/lib/libnvrtc.so.13
