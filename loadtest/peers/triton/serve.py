"""Triton itself, from PyTriton's wheel, with ONNX Runtime in the wheel's only backend, that for Python."""

import os
import shutil
import sys
from pathlib import Path

import pytriton
import scorer
from scorer import BATCH, HOST, PORT, WAIT_MS, WORK, WORKERS

CONFIG = f"""
backend: "python"
max_batch_size: 4096
input [{{ name: "ids", data_type: TYPE_INT32, dims: [2] }}]
output [{{ name: "probability", data_type: TYPE_FP32, dims: [1] }}]
instance_group [{{ count: {WORKERS}, kind: KIND_CPU }}]
"""
BATCHING = f"dynamic_batching {{ max_queue_delay_microseconds: {int(WAIT_MS * 1e3)} }}\n"


def main() -> None:
    """Lays out a model repository and becomes the server."""
    wheel = Path(pytriton.__file__).parent / "tritonserver"
    backends, repository = WORK / "backends", WORK / "models"
    _copy_backend(wheel, backends)
    _write_model(repository / "model")
    # The backend's Python ignores PYTHONPATH and takes its packages from the environment of the first python3.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["LD_LIBRARY_PATH"] = str(wheel.parent.parent / "nvidia_pytriton.libs")
    binary = str(wheel / "bin" / "tritonserver")
    os.execv(binary, [
        binary,
        "--model-repository", str(repository), "--backend-directory", str(backends),
        "--http-address", HOST, "--http-port", str(PORT), "--http-thread-count", str(WORKERS),
        "--allow-grpc", "false", "--allow-metrics", "false", "--log-info", "false",
    ])  # fmt: skip


def _copy_backend(wheel: Path, backends: Path) -> None:
    # The wheel has a stub for each Python, and the backend wants the right one beside itself.
    shutil.copytree(wheel / "backends", backends)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / python / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python" / stub.name)


def _write_model(folder: Path) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    for source in (Path(__file__).with_name("model.py"), Path(scorer.__file__)):
        shutil.copy(source, version / source.name)
    (folder / "config.pbtxt").write_text(CONFIG + (BATCHING if BATCH > 1 else ""), encoding="ascii")


if __name__ == "__main__":
    main()
