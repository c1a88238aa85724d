"""The model in a peer's process: ONNX Runtime on one thread, as ours has it; on the path of every `serve.py`.

What the harness asks of a peer comes in environment variables, since the frameworks start processes of their own
that inherit nothing else for certain.
"""

import os
import socket
from itertools import chain
from pathlib import Path

import numpy as np
import onnxruntime

MODEL = os.environ["PEER_MODEL"]
PORT = int(os.environ["PEER_PORT"])
WORKERS = int(os.environ["PEER_WORKERS"])
BATCH = int(os.environ["PEER_BATCH"])
"""Requests joined into a batch at most; 1 is no batching."""
WAIT_MS = float(os.environ["PEER_WAIT_MS"])
"""How long a batch waits for more requests."""
WORK = Path(os.environ["PEER_WORK"])
"""An empty folder for what the server writes."""
HOST = "127.0.0.1"

Rows = list[list[int]]


class Scorer:
    """Scores rows of encoded ids."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, ids: np.ndarray) -> np.ndarray:
        """A float32 for each row of an int32 array of rows by features."""
        [scores] = self._session.run(None, {self._input: ids})
        return scores.reshape(-1)

    def scores(self, rows: Rows) -> np.ndarray:
        """A float32 for each row."""
        return self.run(np.array(rows, np.int32))

    def batch(self, requests: list[Rows]) -> list[np.ndarray]:
        """The scores of each request, of all in one run."""
        scores = self.scores(list(chain.from_iterable(requests)))
        ends = np.cumsum([len(rows) for rows in requests])
        return np.split(scores, ends[:-1])


def free_port() -> int:
    """A port that nobody listens on, for a server that wants more than one."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
