"""PyTriton: Triton's HTTP server and dynamic batcher, and the model as functions that it calls in Python."""

import signal
import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from scorer import BATCH, HOST, PORT, WAIT_MS, WORK, WORKERS, Scorer

ROWS = 4096
"""Triton counts a batch in rows, and refuses a request with more."""


def predict() -> object:
    """An instance of the model."""
    scorer = Scorer()

    @batch
    def infer(ids: np.ndarray) -> list[np.ndarray]:
        return [scorer.run(ids).reshape(-1, 1)]

    return infer


if __name__ == "__main__":
    config = TritonConfig(
        http_address=HOST, http_port=PORT, allow_grpc=False, allow_metrics=False,
        http_thread_count=WORKERS, log_verbose=0,
    )  # fmt: skip
    batcher = DynamicBatcher(max_queue_delay_microseconds=int(WAIT_MS * 1e3))
    # So that it stops Triton then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Triton(config=config, workspace=WORK / "triton") as triton:
        triton.bind(
            model_name="model",
            infer_func=[predict() for _ in range(WORKERS)],
            inputs=[Tensor(name="ids", dtype=np.int32, shape=(2,))],
            outputs=[Tensor(name="probability", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=ROWS, batching=True, batcher=batcher if BATCH > 1 else None),
        )
        triton.serve()
