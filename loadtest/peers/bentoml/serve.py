"""BentoML: a service of worker processes, each with adaptive batches of its own; what is batched are rows."""

import os
import sys

import bentoml
import numpy as np
from scorer import BATCH, HOST, PORT, WAIT_MS, WORK, WORKERS, Scorer

# Access logs cost a line a request, and there is nobody to trace for.
CONFIG = {
    "workers": WORKERS,
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
}


@bentoml.service(**CONFIG)
class Predict:
    """Scores the rows in `input`."""

    def __init__(self) -> None:
        self.scorer = Scorer()

    @bentoml.api(
        batchable=BATCH > 1,
        # It wants a limit in any case, and one of 1 is refused.
        max_batch_size=max(BATCH, 2),
        max_latency_ms=int(WAIT_MS) or 1,
    )
    def predict(self, input: np.ndarray) -> np.ndarray:
        """A score for each row."""
        return self.scorer.run(input.astype(np.int32, copy=False))


if __name__ == "__main__":
    os.environ |= {"BENTOML_HOME": str(WORK), "BENTOML_DO_NOT_TRACK": "True"}
    folder = os.path.dirname(os.path.abspath(__file__))
    command = ["-m", "bentoml", "serve", "serve:Predict", "--working-dir", folder]
    os.execv(sys.executable, [sys.executable, *command, "--host", HOST, "--port", str(PORT)])
