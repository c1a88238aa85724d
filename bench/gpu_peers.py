"""What batches of the shapes that `gpu-check shape` measures take in PyTorch and ONNX Runtime on the same GPU.

All have one table for all columns, and ids and dense values that lie in the GPU's memory before. PyTorch gets as many
different batches as ours and, with CUDA graphs, one that holds all of them as ours does; ONNX Runtime one batch, and a
replay for each. PyTorch compiles in its default mode. In half precision NumPy or PyTorch turn dense values into halves
before, which is part of what scores take from the host. Results go to `--out`
after every step, one object a peer and batch size: `device_us` is a batch's mean over a row of batches, `host_us` the
median from NumPy arrays to scores in the processor's memory. Both are also given as ratios to what ours took in the
report of `--ours`. What is missing or fails is an entry with its error.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Shape:
    """A shape of Wide & Deep."""

    columns: int
    units: tuple[int, ...]
    dimension: int = 64
    dense: int = 13


SHAPES = {"ranking": Shape(26, (1024, 512, 256)), "nvidia": Shape(15, (1024,) * 5)}
"""The same as in `gpu_check/shape.rs`."""


class WideAndDeep(nn.Module):
    """Wide & Deep over one table that all columns share."""

    def __init__(self, shape: Shape, table_rows: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(table_rows, shape.dimension).uniform_(-1, 1))
        self.wide = nn.Parameter(torch.empty(table_rows, 1).uniform_(-0.2, 0.2))
        widths = [shape.columns * shape.dimension + shape.dense, *shape.units]
        pairs = zip(widths, widths[1:], strict=False)
        hidden = [part for inputs, outputs in pairs for part in (nn.Linear(inputs, outputs), nn.ReLU())]
        self.deep = nn.Sequential(*hidden, nn.Linear(widths[-1], 1))

    def forward(self, ids: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """The probability of each row."""
        inputs = torch.cat([nn.functional.embedding(ids, self.table).flatten(1), dense], 1)
        wide = nn.functional.embedding(ids, self.wide).sum(1)
        return torch.sigmoid((self.deep(inputs) + wide).float())


Batch = tuple[np.ndarray, np.ndarray]
Prepared = tuple[Callable[[], int], Callable[[Batch], np.ndarray]]
"""What computes batches that lie on the GPU and says how many, and what computes one from the processor's memory."""
Peer = Callable[[list[Batch]], Prepared]
"""Takes batches to the GPU."""


def torch_peer(module: nn.Module, dtype: torch.dtype) -> Peer:
    """PyTorch, with a module as it is or compiled, each call by itself."""

    def prepare(batches: list[Batch]) -> Prepared:
        resident = [_up(batch, dtype) for batch in batches]

        @torch.inference_mode()
        def on_device() -> int:
            for batch in resident:
                module(*batch)
            return len(resident)

        @torch.inference_mode()
        def from_host(batch: Batch) -> np.ndarray:
            scores: np.ndarray = module(*_up(batch, dtype)).cpu().numpy()
            return scores

        return on_device, from_host

    return prepare


def torch_graph_peer(module: nn.Module, dtype: torch.dtype) -> Peer:
    """PyTorch, with a module as it is or compiled, from CUDA graphs."""

    @torch.inference_mode()
    def capture(inputs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                module(*inputs[0])
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for batch in inputs:
                scores = module(*batch)
        return graph, scores

    def prepare(batches: list[Batch]) -> Prepared:
        resident = [_up(batch, dtype) for batch in batches]
        all_of_them, _ = capture(resident)
        ids, dense = resident[0]
        pinned = [torch.from_numpy(part).pin_memory() for part in batches[0]]
        one, scores = capture([(ids, dense)])
        answer = torch.empty(scores.shape, pin_memory=True)

        def on_device() -> int:
            all_of_them.replay()
            return len(resident)

        @torch.inference_mode()
        def from_host(batch: Batch) -> np.ndarray:
            for part, to in zip(batch, pinned, strict=True):
                to.numpy()[:] = part
            ids.copy_(pinned[0], non_blocking=True)
            dense.copy_(pinned[1], non_blocking=True)
            one.replay()
            answer.copy_(scores, non_blocking=True)
            torch.cuda.current_stream().synchronize()
            return answer.numpy().copy()

        return on_device, from_host

    return prepare


def _up(batch: Batch, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    ids, dense = (torch.from_numpy(part).cuda() for part in batch)
    return ids, dense.to(dtype)


def onnx_peer(path: Path, dtype: torch.dtype, graph: bool) -> Peer:
    """ONNX Runtime on the GPU, with its inputs and outputs bound to the GPU's memory."""
    import onnxruntime

    onnxruntime.preload_dlls(cuda=False, cudnn=False)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider = ("CUDAExecutionProvider", {"enable_cuda_graph": "1" if graph else "0", "use_tf32": "0"})
    number = np.float16 if dtype == torch.float16 else np.float32

    def prepare(batches: list[Batch]) -> Prepared:
        # One for each batch size: a session with a CUDA graph keeps the first shape.
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
        rows = len(batches[0][0])
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        ids, dense = batches[0][0], batches[0][1].astype(number)
        inputs = [value(ids, "cuda", 0), value(dense, "cuda", 0)]
        output = value(np.zeros((rows, 1), np.float32), "cuda", 0)
        binding = session.io_binding()
        for name, bound in zip(("ids", "dense"), inputs, strict=True):
            binding.bind_ortvalue_input(name, bound)
        binding.bind_ortvalue_output("probability", output)
        run = onnxruntime.RunOptions()
        run.add_run_config_entry("gpu_graph_id", "1" if graph else "-1")
        session.run_with_iobinding(binding, run)
        unsynchronized = onnxruntime.RunOptions()
        unsynchronized.add_run_config_entry("gpu_graph_id", "1" if graph else "-1")
        unsynchronized.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def on_device() -> int:
            # The same batch each time, which only helps: other ids would take a copy first.
            for _ in batches:
                session.run_with_iobinding(binding, unsynchronized)
            return len(batches)

        def from_host(batch: Batch) -> np.ndarray:
            inputs[0].update_inplace(batch[0])
            inputs[1].update_inplace(batch[1].astype(number))
            session.run_with_iobinding(binding, run)
            scores: np.ndarray = output.numpy()
            return scores

        return on_device, from_host

    return prepare


def write_onnx(module: WideAndDeep, shape: Shape, path: Path, dtype: torch.dtype) -> None:
    """The module as a model file, its numbers in a file beside it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT16 if dtype == torch.float16 else TensorProto.FLOAT
    tensors = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    node, nodes = helper.make_node, []
    nodes.append(node("Gather", ["table", "ids"], ["gathered"]))
    nodes.append(node("Flatten", ["gathered"], ["embedded"], axis=1))
    nodes.append(node("Concat", ["embedded", "dense"], ["0"], axis=1))
    linear = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    at = "0"
    for number, name in enumerate(linear):
        out = f"{name}.out" if number + 1 < len(linear) else "deep_out"
        nodes.append(node("Gemm", [at, f"{name}.weight", f"{name}.bias"], [out], transB=1))
        if out != "deep_out":
            nodes.append(node("Relu", [out], [f"{name}.relu"]))
        at = f"{name}.relu"
    nodes.append(node("Gather", ["wide", "ids"], ["weights"]))
    nodes.append(node("ReduceSum", ["weights", "axes"], ["wide_out"], keepdims=0))
    nodes.append(node("Add", ["deep_out", "wide_out"], ["sum"]))
    nodes.append(node("Cast", ["sum"], ["logit"], to=TensorProto.FLOAT))
    nodes.append(node("Sigmoid", ["logit"], ["probability"]))
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT32, ["rows", shape.columns]),
        helper.make_tensor_value_info("dense", kind, ["rows", shape.dense]),
    ]
    output = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows", 1])
    constants = [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    graph = helper.make_graph(nodes, "wide_and_deep", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1 << 20)


def batches(shape: Shape, table_rows: int, rows: int) -> list[Batch]:
    """So many that together they touch more than the GPU's caches hold, where the rows are many."""
    draw = np.random.default_rng(rows)
    share = table_rows // shape.columns
    starts = np.arange(shape.columns, dtype=np.int32) * share
    count = min(max(BATCH_ROWS // rows, 8), 64)
    return [
        (
            draw.integers(0, share, (rows, shape.columns), dtype=np.int32) + starts,
            draw.uniform(-1, 1, (rows, shape.dense)).astype(np.float32),
        )
        for _ in range(count)
    ]


def measure(peer: Peer, given: list[Batch], reference: np.ndarray, tolerance: float) -> dict[str, float]:
    """What a batch takes; the scores of the first are compared with `reference`."""
    on_device, from_host = peer(given)
    on_device()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    count = 0
    while time.perf_counter() - begin < DEVICE_SECONDS:
        for _ in range(4):
            count += on_device()
        torch.cuda.synchronize()
    device = (time.perf_counter() - begin) / count
    distance = float(np.abs(from_host(given[0]) - reference).max())
    if not distance <= tolerance:
        raise ValueError(f"scores are off by {distance}")
    host = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < HOST_SECONDS:
        for batch in given:
            start = time.perf_counter()
            from_host(batch)
            host.append(time.perf_counter() - start)
    return {"device_us": device * 1e6, "host_us": statistics.median(host) * 1e6, "distance": distance}


def main() -> int:
    """Measures what the command line asks for."""
    arguments = _arguments()
    shape = SHAPES[arguments.shape]
    dtype = torch.float16 if arguments.precision == "half" else torch.float32
    found: dict[str, Any] = {
        "step": f"peers: {arguments.shape}, {arguments.precision}",
        "device": torch.cuda.get_device_name(),
        "passed": True,
        "torch": torch.__version__,
        "peers": [],
        "table": [],
        "figures": {},
    }
    ours = _ours(arguments.ours) if arguments.ours else {}

    def add(**entry: Any) -> None:
        found["peers"].append(entry)
        found["table"].append(_line(entry, ours))
        if "error" not in entry:
            found["figures"][f"{entry['peer']}, {entry['rows']} rows"] = _ratios(entry, ours)
        arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(entry, file=sys.stderr, flush=True)

    torch.manual_seed(7)
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.device("cuda"):
        module = WideAndDeep(shape, arguments.table_rows)
    module = module.eval().to(dtype)
    given = {rows: batches(shape, arguments.table_rows, rows) for rows in arguments.rows}
    tolerance = 5e-3 if dtype == torch.float16 else 1e-4
    references = {}
    with torch.inference_mode():
        for rows, several in given.items():
            ids, dense = (torch.from_numpy(part).cuda() for part in several[0])
            references[rows] = module(ids, dense.to(dtype)).cpu().numpy()

    compiled = torch.compile(module, dynamic=False)
    with tempfile.TemporaryDirectory() as folder:
        peers: dict[str, Callable[[], Peer]] = {
            "PyTorch eager": lambda: torch_peer(module, dtype),
            "PyTorch eager, CUDA graph": lambda: torch_graph_peer(module, dtype),
            "PyTorch compiled": lambda: torch_peer(compiled, dtype),
            "PyTorch compiled, CUDA graph": lambda: torch_graph_peer(compiled, dtype),
        }
        path = Path(folder) / "model.onnx"

        def onnx_of(graph: bool) -> Peer:
            if not path.exists():
                write_onnx(module, shape, path, dtype)
            return onnx_peer(path, dtype, graph)

        peers["ONNX Runtime"] = lambda: onnx_of(False)
        peers["ONNX Runtime, CUDA graph"] = lambda: onnx_of(True)
        for name, make in peers.items():
            try:
                peer = make()
            except Exception as error:
                add(peer=name, error=f"{type(error).__name__}: {error}"[:300])
                continue
            for rows, several in given.items():
                try:
                    figures = measure(peer, several, references[rows], tolerance)
                    add(peer=name, rows=rows, **figures)
                except Exception as error:
                    # A package that is not there is no fault; one that computes something else is.
                    found["passed"] = False
                    add(peer=name, rows=rows, error=f"{type(error).__name__}: {error}"[:300])
    return 0 if found["passed"] else 1


def _ours(report: Path) -> dict[int, dict[str, float]]:
    """The times of ours by batch size; none where that step failed."""
    try:
        model = json.loads(report.read_text(encoding="utf-8"))["model"] or {}
    except OSError:
        return {}
    return {times["rows"]: times for times in model.get("times", [])}


def _ratios(entry: dict[str, Any], ours: dict[int, dict[str, float]]) -> dict[str, float]:
    figures = {name: round(entry[name], 1) for name in ("device_us", "host_us")}
    if times := ours.get(entry["rows"]):
        figures["device_times_ours"] = round(entry["device_us"] / times["device_us"], 2)
        figures["host_times_ours"] = round(entry["host_us"] / times["engine_p50_us"], 2)
    return figures


def _line(entry: dict[str, Any], ours: dict[int, dict[str, float]]) -> str:
    name = f"{entry['peer']:29} {entry.get('rows', ''):>6} rows"
    if "error" in entry:
        return f"{name}: {entry['error'][:120]}"
    return f"{name}: " + ", ".join(f"{figure} {value}" for figure, value in _ratios(entry, ours).items())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--precision", choices=("half", "single"), default="half")
    parser.add_argument("--table-rows", type=int, default=10_000_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 256, 16384])
    parser.add_argument("--ours", type=Path, help="the report of `gpu-check shape` of the same shape and precision")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


BATCH_ROWS = 32768
DEVICE_SECONDS = 0.3
HOST_SECONDS = 0.15


if __name__ == "__main__":
    sys.exit(main())
