#!/bin/sh
# Prints the folder of a libclang, which bindings to C headers are made with, after fetching it from PyPI where it is not
# there yet. LIBCLANG_PATH, where set, wins.
set -eu

if [ -n "${LIBCLANG_PATH:-}" ]; then
    echo "$LIBCLANG_PATH"
    exit
fi
case $(uname -m) in
    x86_64) platform=manylinux2010_x86_64 sha256=c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b ;;
    aarch64) platform=manylinux2014_aarch64 sha256=54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592 ;;
    *) echo "no libclang wheel for $(uname -m): set LIBCLANG_PATH to the folder of one" >&2; exit 1 ;;
esac
exec "$(dirname "$0")/wheel.sh" libclang 18.1.1 "$platform" "$sha256" \
    libclang-18.1.1.data/platlib/clang/native/libclang.so
