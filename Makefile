# Each target is a line or two over plain cargo; what it needs beyond Debian's packages it fetches itself.
.PHONY: demo demo-loop test bench loadtest loadtest-peers loadtest-feedback replicas-check crash-check overload replay train-retail train-adult bench-train bench-recommend tensorrt tensorrt-check tensorrt-memcheck gpu-check gpu-bundle mlflow-check

# What a failed recipe has begun is not taken for done the next time.
.DELETE_ON_ERROR:

# Every program that computes needs the library; where it cannot be had, nothing goes on without it.
WITH_ONNXRUNTIME = MILLRACE_ONNXRUNTIME="$${MILLRACE_ONNXRUNTIME:-$$(deploy/onnxruntime.sh)}" && export MILLRACE_ONNXRUNTIME &&
# The crate over TensorRT needs libclang to compile, and none of TensorRT's libraries.
WITH_LIBCLANG = LIBCLANG_PATH="$${LIBCLANG_PATH:-$$(deploy/libclang.sh)}" && export LIBCLANG_PATH &&
# The kernels' tests compile them with it.
WITH_NVRTC = MILLRACE_NVRTC="$${MILLRACE_NVRTC:-$$(deploy/nvrtc.sh)}" && export MILLRACE_NVRTC &&
TARGET = $(or $(CARGO_TARGET_DIR),target)

## From nothing to a model that answers on 127.0.0.1:8000; Ctrl-C ends it. The second time it starts in seconds.
demo:
	deploy/demo.sh

## A shop whose users' tastes shift and that gets over it by itself, then a version that the server takes back, in some three
## minutes; docs/loop.svg shows both, and the last line is one JSON object.
demo-loop:
	cargo build --release -p millrace -p millrace-trainer --bin millrace --bin millrace-trainer
	$(WITH_ONNXRUNTIME) python3 loadtest/run_loop.py

## All tests, a second implementation of ONNX among them. Without a network once the first run has fetched the crates,
## ONNX Runtime and NVRTC; without a GPU.
test:
	$(WITH_ONNXRUNTIME) $(WITH_LIBCLANG) $(WITH_NVRTC) cargo test --workspace --features millrace-trainer/tract,millrace/tensorrt --quiet

## The stages of a request one by one, by criterion; ARGS="decode" runs those with that in their names.
bench:
	cargo build --release -p millrace-trainer
	$(WITH_ONNXRUNTIME) MILLRACE_BENCH_VERSION="$$(python3 loadtest/repository.py $(TARGET))" && export MILLRACE_BENCH_VERSION && cargo bench --quiet -p millrace --bench stages -- $(ARGS)

## Pairs of a user with an item a second: a catalogue that is searched, and batches as predict would score them.
bench-recommend:
	$(WITH_ONNXRUNTIME) cargo bench --quiet -p millrace-trainer --bench recommend -- $(ARGS)

## The server beside a bare hyper server, by wrk and oha, for some 45 minutes; ARGS="--quick" only tries the harness.
loadtest: $(TARGET)/tools/bin/oha
	cargo build --release --workspace --exclude millrace-tensorrt
	$(WITH_ONNXRUNTIME) python3 loadtest/run.py $(ARGS)

## The server beside other inference servers from PyPI (3 GB of them) and the bare one, for some 30 minutes;
## ARGS="--quick" only tries it, ARGS="--only fastapi,mosec" takes these.
loadtest-peers: $(TARGET)/tools/bin/oha
	cargo build --release --workspace --exclude millrace-tensorrt
	$(WITH_ONNXRUNTIME) python3 loadtest/run_peers.py $(ARGS)

## How many events of feedback are durable a second, and what receipts cost, for some four minutes; ARGS="--quick" only tries it.
loadtest-feedback:
	cargo build --release --workspace --exclude millrace-tensorrt
	$(WITH_ONNXRUNTIME) python3 loadtest/run_feedback.py $(ARGS)

## Two replicas behind nginx with a real Prometheus and Alertmanager, for half a minute; takes Debian's nginx-light, prometheus and
## prometheus-alertmanager.
replicas-check:
	cargo build --release --workspace --exclude millrace-tensorrt
	$(WITH_ONNXRUNTIME) python3 loadtest/run_replicas.py

## A server that is killed 1,000 times while it takes feedback, for some eight minutes; ARGS="--kills 20" only tries it.
crash-check: $(TARGET)/tools/replay/bin/python
	cargo build --release -p millrace
	$(WITH_ONNXRUNTIME) $< loadtest/run_crashes.py $(ARGS)

## What becomes of 2, 5 and 10 times as many requests as a slow model can answer, for some four minutes.
overload: $(TARGET)/tools/bin/oha
	cargo build --release --workspace --exclude millrace-tensorrt
	$(WITH_ONNXRUNTIME) python3 loadtest/run.py --only overload $(ARGS)

## Half a year of the data set Online Retail II in the folder DATA, week by week through a server, a model retrained every week
## beside one that never is, for some 30 minutes, or twice that on a busy machine. ARGS="--weeks 3" only tries it.
replay: $(TARGET)/tools/replay/bin/python
	cargo build --release --workspace --exclude millrace-tensorrt
	$(WITH_ONNXRUNTIME) $< loadtest/run_replay.py "$(DATA)" $(ARGS)

$(TARGET)/tools/replay/bin/python:
	python3 -m venv $(TARGET)/tools/replay
	$@ -m pip install --quiet pyarrow==26.0.1 numpy==2.4.6

## Trains on the data set Online Retail II in the folder DATA and publishes it in models/.
train-retail:
	$(WITH_ONNXRUNTIME) cargo run --release --quiet -p millrace-trainer -- pipeline trainer/pipelines/retail.toml --data "$(DATA)"

## Trains on the data set Adult in the folder DATA with five seeds and publishes the first in models/.
train-adult:
	$(WITH_ONNXRUNTIME) cargo run --release --quiet -p millrace-trainer -- pipeline trainer/pipelines/adult.toml --data "$(DATA)" --seeds 5

## Training beside PyTorch, which it installs (some gigabytes), for some three minutes.
bench-train: $(TARGET)/tools/torch/bin/python
	cargo build --release -p millrace-trainer
	$< bench/train_speed.py --program $(TARGET)/release/train-step

$(TARGET)/tools/torch/bin/python:
	python3 -m venv $(TARGET)/tools/torch
	$@ -m pip install --quiet torch==2.15.0 numpy==2.4.6

## TensorRT-RTX from PyPI, 146 MB to fetch: prints its folder. MILLRACE_TENSORRT names another one.
tensorrt:
	@deploy/tensorrt.sh

## Builds engines of a small model and holds them against their record, without a GPU; the last line is one JSON object.
tensorrt-check:
	deploy/tensorrt-check.sh

## The tests of the crate over TensorRT under AddressSanitizer, over a fake of the library.
tensorrt-memcheck:
	deploy/tensorrt-memcheck.sh

## Checks and measures the engine on this machine's GPU, which takes CUDA's libnvrtc and libcublasLt; see docs/gpu.md.
gpu-check: gpu-bundle
	$(TARGET)/gpu-check/run.sh $(ARGS)

## The same for another machine, as an archive that needs neither Rust nor a network there; the last line is one JSON object.
gpu-bundle: $(TARGET)/tools/bin/oha
	deploy/gpu-bundle.sh

## Runs on an MLflow server from PyPI (some 850 MB), read back by MLflow's own client.
mlflow-check:
	deploy/mlflow-check.sh

$(TARGET)/tools/bin/oha:
	cargo install oha --version 1.16.0 --locked --root $(TARGET)/tools
