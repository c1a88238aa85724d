"""LitServe: FastAPI processes before worker processes that run the model, over its fast queue (ZeroMQ)."""

from typing import Any

import litserve
import numpy as np
from scorer import BATCH, HOST, PORT, WAIT_MS, WORKERS, Rows, Scorer


class Predict(litserve.LitAPI):
    """Scores the rows in `input`."""

    def setup(self, device: str) -> None:
        """Loads the model in a worker."""
        self.scorer = Scorer()

    def decode_request(self, request: dict[str, Any], **_: Any) -> Rows:
        """The rows of a body."""
        rows: Rows = request["input"]
        return rows

    def batch(self, inputs: list[Rows]) -> list[Rows]:
        """Requests as they are: they differ in how many rows they have."""
        return inputs

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        """One output a request already."""
        return output

    def predict(self, x: Any, **_: Any) -> Any:
        """The scores of a request, or of each of a batch of them."""
        return self.scorer.batch(x) if BATCH > 1 else self.scorer.scores(x)

    def encode_response(self, output: np.ndarray, **_: Any) -> dict[str, list[float]]:
        """The body with these scores."""
        return {"output": output.tolist()}


if __name__ == "__main__":
    api = Predict(max_batch_size=BATCH, batch_timeout=WAIT_MS / 1e3)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True)
    server.run(
        host=HOST, port=PORT, num_api_servers=WORKERS,
        log_level="warning", generate_client_file=False, access_log=False,
    )  # fmt: skip
