"""MLServer: the V2 protocol, its adaptive batches and worker processes, and a runtime over ONNX Runtime."""

import asyncio

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from scorer import BATCH, HOST, PORT, WAIT_MS, WORKERS, Scorer, free_port


class Predict(MLModel):
    """Scores the rows of the input `ids`."""

    async def load(self) -> bool:
        """Loads the model, in each worker."""
        self.scorer = Scorer()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """A score for each row."""
        scores = self.scorer.run(NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output("probability", scores.reshape(-1, 1))
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve() -> None:
    """Serves until it is told to stop."""
    settings = Settings(
        host=HOST, http_port=PORT, grpc_port=free_port(), metrics_endpoint=None,
        # With none of its own the model runs in the server's process.
        parallel_workers=WORKERS if WORKERS > 1 else 0,
        debug=False, gzip_enabled=False,
    )  # fmt: skip
    batching = {"max_batch_size": BATCH, "max_batch_time": WAIT_MS / 1e3} if BATCH > 1 else {}
    await MLServer(settings).start([ModelSettings(name="model", implementation=Predict, **batching)])


if __name__ == "__main__":
    asyncio.run(serve())
