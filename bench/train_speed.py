"""Wide & Deep training beside PyTorch on the same machine, in turns: `make bench-train`.

Both train 26 categorical features of 100,000 ids each, embeddings of 16 numbers, layers of 256, 128 and 64 units, on
batches of 1,024 rows of uniformly drawn ids, with two threads on the CPU: Adagrad or a like optimiser on the rows that a
batch touches, Adam on the layers. PyTorch runs with sparse gradients in several settings, and the fastest of them is
what counts. The last line is one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

FEATURES, IDS, DIMENSION, HIDDEN, BATCH, THREADS = 26, 100_000, 16, (256, 128, 64), 1024, 2


def torch_rate(setting: str, seconds: float) -> float:
    """Examples a second of one PyTorch setting, `tables-optimiser`."""
    import torch
    from torch import nn

    torch.set_num_threads(THREADS)
    torch.manual_seed(7)
    tables, optimiser = setting.split("-")

    class WideDeep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            count, size = (1, FEATURES * IDS) if tables == "one" else (FEATURES, IDS)
            self.deep = nn.ModuleList(nn.Embedding(size, DIMENSION, sparse=True) for _ in range(count))
            self.wide = nn.ModuleList(nn.Embedding(size, 1, sparse=True) for _ in range(count))
            widths = (FEATURES * DIMENSION, *HIDDEN)
            layers = [part for a, b in zip(widths, widths[1:]) for part in (nn.Linear(a, b), nn.ReLU())]
            self.layers = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            if tables == "one":
                deep = self.deep[0](ids).flatten(1)
                wide = self.wide[0](ids).sum(1)
            else:
                deep = torch.cat([table(ids[:, i]) for i, table in enumerate(self.deep)], 1)
                wide = sum(table(ids[:, i]) for i, table in enumerate(self.wide))
            return (self.layers(deep) + wide).squeeze(1)

    model = WideDeep()
    sparse = [*model.deep.parameters(), *model.wide.parameters()]
    of_tables = {
        "adagrad": lambda: torch.optim.Adagrad(sparse, lr=0.05),
        "sparseadam": lambda: torch.optim.SparseAdam(sparse, lr=0.001),
    }[optimiser]()
    of_layers = torch.optim.Adam(model.layers.parameters(), lr=0.001, fused=True)
    offsets = torch.arange(FEATURES) * IDS if tables == "one" else torch.zeros(FEATURES, dtype=torch.long)
    batches = [torch.randint(IDS, (BATCH, FEATURES)) + offsets for _ in range(32)]
    labels = (torch.rand(BATCH) < 0.25).float()
    loss_of = nn.BCEWithLogitsLoss(reduction="sum")

    def step(index: int) -> None:
        loss = loss_of(model(batches[index % len(batches)]), labels)
        of_tables.zero_grad(set_to_none=True)
        of_layers.zero_grad(set_to_none=True)
        loss.backward()
        of_tables.step()
        of_layers.step()

    for index in range(10):
        step(index)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step(steps)
        steps += 1
    return steps * BATCH / (time.perf_counter() - start)


def ours(program: str, **options: int) -> dict:
    """What `train-step` says of itself."""
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    run = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def torch_apart(setting: str, seconds: float) -> float:
    """The same in a process of its own, so that one setting leaves nothing behind for the next."""
    command = [sys.executable, __file__, "--torch", setting, "--seconds", str(seconds)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout.splitlines()[-1])


def stolen() -> tuple[int, int]:
    """Ticks that the host took away, and all ticks."""
    with open("/proc/stat") as file:
        ticks = [int(part) for part in file.readline().split()[1:9]]
    return ticks[7], sum(ticks)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="target/release/train-step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--torch", help="only this setting, for the script's own use")
    arguments = parser.parse_args()
    if arguments.torch:
        print(torch_rate(arguments.torch, arguments.seconds))
        return

    before = stolen()
    settings = [f"{tables}-{optimiser}" for tables in ("one", "many") for optimiser in ("adagrad", "sparseadam")]
    tried = {setting: torch_apart(setting, arguments.seconds) for setting in settings}
    for setting, rate in tried.items():
        print(f"PyTorch, {setting:<16} {rate:10,.0f} examples/s")
    best = max(tried, key=tried.get)
    pairs = []
    for turn in range(arguments.rounds):
        mine = ours(arguments.program, threads=THREADS, steps=800)
        theirs = torch_apart(best, arguments.seconds)
        pairs.append((mine, theirs))
        rate = mine["examples_per_second"]
        print(f"turn {turn + 1}: ours {rate:10,.0f}, PyTorch {theirs:10,.0f} examples/s, ratio {rate / theirs:.2f}")
    tables = {"features": 1, "dimension": 32, "threads": THREADS, "steps": 2000}
    sizes = [
        [ours(arguments.program, ids=ids, **tables)["step_ms"] for ids in (100_000, 10_000_000)] for _ in range(3)
    ]
    small, large = (statistics.median(times) for times in zip(*sizes))
    after = stolen()
    print(
        json.dumps(
            {
                "ratio": round(statistics.median(mine["examples_per_second"] / theirs for mine, theirs in pairs), 3),
                "examples_per_second": round(statistics.median(mine["examples_per_second"] for mine, _ in pairs)),
                "torch_examples_per_second": round(statistics.median(theirs for _, theirs in pairs)),
                "torch_setting": best,
                "memory_ratio": round(max(mine["peak_bytes"] / mine["table_bytes"] for mine, _ in pairs), 3),
                "step_ms_100_thousand_ids": round(small, 3),
                "step_ms_10_million_ids": round(large, 3),
                "step_ratio": round(large / small, 3),
                "steal": round((after[0] - before[0]) / max(after[1] - before[1], 1), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
