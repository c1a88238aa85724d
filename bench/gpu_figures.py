"""Puts the figures of a report of `make gpu-check` into docs/gpu.md, between its two marks.

    bench/gpu_figures.py keep gpu-check.json... > docs/gpu-h200.json    what docs are made from, of one report or several
    bench/gpu_figures.py write docs/gpu-h200.json docs/gpu.md

Of a step that several reports have the last one counts.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: made by bench/gpu_figures.py -->", "<!-- end of figures -->"
NAMES = {
    "2-ranking-half": "`ranking`, half",
    "4-ranking-single": "`ranking`, single",
    "5-nvidia-half": "`nvidia`, half",
    "7-nvidia-single": "`nvidia`, single",
    "6-large-half": "demo's columns, `ranking`'s layers, half",
    "3-wide_and_deep-single": "demo's model, single",
    "6-dcn_v2-single": "demo's model with three cross layers, single",
}
BATCHES = (1, 8, 32, 128, 256, 1024, 4096, 16384)
PEERS = {"7-peers-ranking": "`ranking`", "7-peers-nvidia": "`nvidia`"}


def main(arguments: list[str]) -> int:
    """Does what the command line asks for."""
    match arguments:
        case ["keep", *reports] if reports:
            print(json.dumps(_keep([_read(report) for report in reports]), indent=1))
        case ["write", kept, page]:
            path = Path(page)
            before, rest = path.read_text(encoding="utf-8").split(BEGIN)
            after = rest.split(END)[1]
            lines = "\n".join(_lines(_read(kept)["steps"]))
            path.write_text(f"{before}{BEGIN}\n\n{lines}\n{END}{after}", encoding="utf-8")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def _read(path: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return report


def _keep(reports: list[dict[str, Any]]) -> dict[str, Any]:
    steps = {step["name"]: step for report in reports for step in report["steps"]}
    failed = [name for name, step in steps.items() if not step["report"]["passed"]]
    if failed:
        raise SystemExit(f"these steps did not pass: {', '.join(failed)}")
    kept = {}
    for name, step in sorted(steps.items()):
        report = step["report"]
        model = report.get("model") or {}
        parts = {part: model[part] for part in ("times", "throughput", "floor") if part in model}
        parts |= {part: model[part] for part in ("onnx_cpu",) if model.get(part)}
        parts |= {part: report[part] for part in ("torch", "peers", "figures") if report.get(part)}
        kept[name] = parts
    return {"device": next(report["device"] for report in reports if report["device"]), "steps": _rounded(kept)}


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {name: _rounded(part) for name, part in value.items()}
        case list():
            return [_rounded(part) for part in value]
    return value


def _lines(steps: dict[str, Any]) -> Iterator[str]:
    yield "Microseconds of a batch on the device and, behind it, from rows to scores (median):"
    yield ""
    yield from _table(["", *(f"{rows:,}" for rows in BATCHES)], _times(steps))
    yield "Millions of rows a second on the device, each with its share of what the GPU can do at most, and from rows to scores:"
    yield ""
    yield from _table(["", "at most", "1 slot", "2 slots", "4 slots", "4 slots, from rows"], _rates(steps))
    yield "What others take as a multiple of ours, on the device and from arrays in the host's memory to scores:"
    yield ""
    yield from _table(["", "1 row", "256 rows", "16,384 rows"], _peers(steps))
    if http := steps.get("8-http"):
        yield f"Over HTTP on the loopback, the demo's model in {http['figures']['precision']} precision, beside `onnx-cpu`:"
        yield ""
        yield from _table(["", "`cuda`, requests/s", "p50 us", "p99 us", "`onnx-cpu`, requests/s", "p50 us", "p99 us"], _http(http))


def _table(head: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _times(steps: dict[str, Any]) -> Iterator[list[str]]:
    for step, name in NAMES.items():
        times = {times["rows"]: times for times in steps.get(step, {}).get("times", [])}
        found = (times.get(rows) for rows in BATCHES)
        cells = [f"{it['device_us']:.1f}, {it['engine_p50_us']:.1f}" if it else "" for it in found]
        if times:
            yield [name, *cells]


def _rates(steps: dict[str, Any]) -> Iterator[list[str]]:
    for step, name in NAMES.items():
        rates = steps.get(step, {}).get("throughput", [])
        if not rates:
            continue
        floor = steps[step]["floor"]["rows_per_s"]
        best = {slots: max(rate["device_rows_per_s"] for rate in rates if rate["slots"] == slots) for slots in (1, 2, 4)}
        whole = max(rate["engine_rows_per_s"] for rate in rates if rate["slots"] == 4)
        cells = [f"{rate / 1e6:.1f} ({rate / floor:.0%})" for rate in best.values()]
        yield [name, f"{floor / 1e6:,.0f}", *cells, f"{whole / 1e6:.1f}"]


def _peers(steps: dict[str, Any]) -> Iterator[list[str]]:
    for step, shape in PEERS.items():
        figures = steps.get(step, {}).get("figures", {})
        names = dict.fromkeys(figure.rpartition(", ")[0] for figure in figures)
        for name in names:
            found = (figures.get(f"{name}, {rows} rows") for rows in (1, 256, 16384))
            cells = [f"{it['device_times_ours']}, {it['host_times_ours']}" if it else "" for it in found]
            yield [f"{shape}: {name}", *cells]


def _http(http: dict[str, Any]) -> Iterator[list[str]]:
    figures = http["figures"]
    loads = {
        "1row_c1": "1 row, 1 connection",
        "open_10k": "1 row, 10,000 requests/s, open loop",
        "1row_c64": "1 row, 64 connections",
        "100row_c64": "100 rows, 64 connections",
        "1000row_c64": "1,000 rows, 64 connections",
        "1000row_binary_c64": "1,000 rows, binary, 64 connections",
    }
    for load, name in loads.items():
        cells = []
        for prefix in ("", "onnx-cpu_"):
            cells += [f"{figures[f'{prefix}{load}_{part}']:,}" for part in ("per_s", "p50_us", "p99_us")]
        yield [name, *cells]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
