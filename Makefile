# Each target is a line or two over plain cargo; what it needs beyond Debian's packages it fetches itself.
.PHONY: demo test loadtest train-retail

# Every program that computes needs the library; where it cannot be had, nothing goes on without it.
WITH_ONNXRUNTIME = MILLRACE_ONNXRUNTIME="$${MILLRACE_ONNXRUNTIME:-$$(deploy/onnxruntime.sh)}" && export MILLRACE_ONNXRUNTIME &&
TARGET = $(or $(CARGO_TARGET_DIR),target)

## From nothing to a model that answers on 127.0.0.1:8000; Ctrl-C ends it. The second time it starts in seconds.
demo:
	deploy/demo.sh

## All tests, a second implementation of ONNX among them. Without a network once the first run has fetched the crates
## and ONNX Runtime; without a GPU.
test:
	$(WITH_ONNXRUNTIME) cargo test --workspace --features millrace-trainer/tract --quiet

## The server beside a bare hyper server, by wrk and oha, for some 10 minutes; ARGS="--quick" only tries the harness.
loadtest: $(TARGET)/tools/bin/oha
	cargo build --release --workspace
	$(WITH_ONNXRUNTIME) python3 loadtest/run.py $(ARGS)

## Trains on the data set Online Retail II in the folder DATA and publishes it in models/.
train-retail:
	$(WITH_ONNXRUNTIME) cargo run --release --quiet -p millrace-trainer -- pipeline trainer/pipelines/retail.toml --data "$(DATA)"

$(TARGET)/tools/bin/oha:
	cargo install oha --version 1.16.0 --locked --root $(TARGET)/tools
