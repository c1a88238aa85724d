#!/bin/sh
# Runs the tests of the crate over TensorRT under AddressSanitizer: they make and drop its objects in every order, over
# a fake of the library, and neither the shim nor the fake may leak, free twice, or touch what is gone. Rust's own code
# is not instrumented, but what it allocates is watched like all the rest.
set -eu
cd "$(dirname "$0")/.."
sanitizer=$("${CXX:-c++}" -print-file-name=libasan.so)
host=$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)
MILLRACE_TENSORRT_SANITIZE=1
# The sanitizer has to come before every other library, and only in the tests themselves.
export MILLRACE_TENSORRT_SANITIZE "CARGO_TARGET_${host}_RUNNER=env LD_PRELOAD=$(realpath "$sanitizer") ASAN_OPTIONS=detect_leaks=1"
LIBCLANG_PATH=${LIBCLANG_PATH:-$(deploy/libclang.sh)} cargo test --quiet --package millrace-tensorrt --test tensorrt -- --skip real:: "$@"
