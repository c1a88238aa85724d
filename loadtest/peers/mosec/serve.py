"""mosec: its HTTP server and batches are in Rust, the workers are Python processes on the other end of a socket."""

import sys
from typing import Any

import orjson
from mosec import Server, Worker
from scorer import BATCH, HOST, PORT, WAIT_MS, WORKERS, Rows, Scorer


class Predict(Worker):
    """Scores the rows in `input`."""

    def __init__(self) -> None:
        self.scorer = Scorer()

    def deserialize(self, data: bytes) -> Rows:
        """The rows of a body."""
        rows: Rows = orjson.loads(data)["input"]
        return rows

    def forward(self, data: Any) -> Any:
        """The scores of a request, or of each of a batch of them."""
        return self.scorer.batch(data) if BATCH > 1 else self.scorer.scores(data)

    def serialize(self, data: Any) -> bytes:
        """The body with these scores."""
        return orjson.dumps({"output": data}, option=orjson.OPT_SERIALIZE_NUMPY)


if __name__ == "__main__":
    # Where it listens is said on its command line only.
    sys.argv += ["--address", HOST, "--port", str(PORT), "--log-level", "warning"]
    server = Server()
    server.append_worker(Predict, num=WORKERS, max_batch_size=BATCH, max_wait_time=int(WAIT_MS))
    server.run()
