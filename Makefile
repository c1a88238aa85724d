# Each target is a line or two over plain cargo; what it needs beyond Debian's packages it fetches itself.
.PHONY: test

## All tests. Without a network once the first run has fetched the crates and ONNX Runtime; without a GPU.
test:
	MILLRACE_ONNXRUNTIME="$$(deploy/onnxruntime.sh)" cargo test --workspace --quiet
