"""Bodies of random rows in the engine's layout, from what the server says of its model.

An index is drawn from its column's range and a number is 0, which is its mean, so a body costs the server what that of
a caller does who has encoded rows.
"""

import random
import struct
from pathlib import Path
from typing import Any

HEADERS = {"Content-Type": "application/octet-stream", "Accept": "application/octet-stream"}
COUNT = 256
"""As many as `rows.lua` makes of so many rows."""


def write(path: Path, rows: int, inputs: list[dict[str, Any]]) -> bytes:
    """Writes bodies of so many rows one after the other, and returns the first."""
    generator = random.Random(1)
    bodies = [b"".join(_tensor(generator, rows, each) for each in inputs) for _ in range(COUNT)]
    path.write_bytes(b"".join(bodies))
    return bodies[0]


def _tensor(generator: random.Random, rows: int, each: dict[str, Any]) -> bytes:
    count = rows * each["width"]
    if each["dtype"] == "f32":
        return struct.pack(f"<{count}f", *[0.0] * count)
    ranges = [columns["indices"] for columns in each["columns"] for _ in range(columns["width"])]
    elements = [generator.randint(first, last) for _ in range(rows) for first, last in ranges]
    return struct.pack(f"<{count}i", *elements)
