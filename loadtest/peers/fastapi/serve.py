"""FastAPI under uvicorn: a process a core on uvloop and httptools, and orjson in place of models of the body.

It joins no requests: each runs the model by itself, in the event loop, for a thread would cost more than the run.
"""

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from scorer import HOST, PORT, WORKERS, Scorer

app = FastAPI()
scorer = Scorer()


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Scores the rows in `input`."""
    scores = scorer.scores(orjson.loads(await request.body())["input"])
    body = orjson.dumps({"output": scores}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        "serve:app",
        host=HOST, port=PORT, workers=WORKERS,
        loop="uvloop", http="httptools", access_log=False, log_level="warning",
    )  # fmt: skip
