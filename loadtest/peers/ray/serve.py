"""Ray Serve: HAProxy before replicas in processes of their own; `serve.batch` joins requests within a replica."""

import os
import signal
import threading

from scorer import BATCH, HOST, PORT, WAIT_MS, WORK, WORKERS, Rows, Scorer, free_port

# Read while ray is imported. The proxy in Python that it has by default serves a fifth of what HAProxy does. No folder
# for HAProxy's files, since the paths of sockets may not be long.
os.environ |= {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(WORK / "haproxy.cfg"),
    "RAY_SERVE_HAPROXY_SOCKET_PATH": str(WORK / "admin.sock"),
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(WORK / "metrics.sock"),
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(WORK),
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(WORK / "server-state"),
    "RAY_USAGE_STATS_ENABLED": "0",
}

import numpy as np  # noqa: E402
import orjson  # noqa: E402
import ray  # noqa: E402
from ray import serve  # noqa: E402
from ray.serve.config import HTTPOptions  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402


@serve.deployment(
    num_replicas=WORKERS,
    max_ongoing_requests=256,
    # The proxy and the controller need cores too, and there are but two.
    ray_actor_options={"num_cpus": 0},
)
class Predict:
    """Scores the rows in `input`."""

    def __init__(self) -> None:
        self.scorer = Scorer()

    async def __call__(self, request: Request) -> Response:
        """Scores one request."""
        rows = orjson.loads(await request.body())["input"]
        scores = await self.batch(rows) if BATCH > 1 else self.scorer.scores(rows)
        body = orjson.dumps({"output": scores}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, media_type="application/json")

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_MS / 1e3)
    async def batch(self, requests: list[Rows]) -> list[np.ndarray]:
        """The scores of each request, of all in one run."""
        return self.scorer.batch(requests)


if __name__ == "__main__":
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    ray.init(
        _node_ip_address=HOST, _temp_dir=str(WORK), include_dashboard=False, configure_logging=False,
        object_store_memory=100 << 20,
    )  # fmt: skip
    serve.start(http_options=HTTPOptions(host=HOST, port=PORT), logging_config={"enable_access_log": False})
    serve.run(Predict.bind(), name="peer", route_prefix="/predict")
    stopped.wait()
    serve.shutdown()
    ray.shutdown()
