"""Versions with tables of any size, made of small ones: random rows behind those that there are.

The vocabularies know the first rows only, so what was trained scores as it did and the golden rows stay as they are. It
takes nothing but Python, for it runs where the trainer does not, and writes the tables as a stream, hashed on the way.

Source of the numbers of fields: onnx.proto, <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.
"""

import array
import hashlib
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

NAMES = ("embeddings", "wide")
"""The trainer's names for the tables whose rows are ids."""
KEPT = ("features", "golden.json")
"""What of a version is needed beside the model; sides for recommendations would have tables of their own."""


def lengthen(version: Path, to: Path, table_bytes: int, is_late: Callable[[], bool]) -> int:
    """Makes in the folder `to` a version like `version` whose tables take so many bytes; how many rows that is. Gives up
    once it is late."""
    to.mkdir(parents=True)
    for name in KEPT:
        copy = shutil.copytree if (version / name).is_dir() else shutil.copy
        copy(version / name, to / name)
    model = (version / MODEL).read_bytes()
    tables = [_Table.parse(tensor, version) for tensor in _tensors(model) if _name(tensor) in NAMES]
    rows = table_bytes // sum(table.row_bytes for table in tables)
    places, records = {}, {}
    with (to / DATA).open("wb", buffering=0) as file:
        hasher = hashlib.sha256()
        for table in tables:
            offset = file.tell()
            for piece in table.pieces(rows):
                if is_late():
                    raise TimeoutError("there was no time to make the tables")
                hasher.update(piece)
                file.write(piece)
            places[table.name] = table.beside(rows, offset)
        records[DATA] = (file.tell(), hasher.hexdigest())
    (to / MODEL).write_bytes(_with_tensors(model, places))
    manifest = (version / "manifest.toml").read_text(encoding="utf-8").partition("[files.")[0]
    for path in sorted(path for path in to.rglob("*") if path.is_file()):
        name = path.relative_to(to).as_posix()
        if name not in records:
            contents = path.read_bytes()
            records[name] = (len(contents), hashlib.sha256(contents).hexdigest())
        size, sha256 = records[name]
        manifest += f'[files."{name}"]\nbytes = {size}\nsha256 = "{sha256}"\n\n'
    (to / "manifest.toml").write_text(manifest, encoding="utf-8")
    return rows


@dataclass(frozen=True)
class _Table:
    """A tensor of a model."""

    name: str
    columns: list[int]
    """Its shape without the rows."""
    numbers: bytes

    @staticmethod
    def parse(tensor: bytes, version: Path) -> "_Table":
        fields = dict(_fields(tensor))
        rows, *columns = _numbers(fields[DIMS])
        beside = dict(_entry(value) for tag, value in _fields(tensor) if tag == EXTERNAL_DATA)
        if beside:
            start, length = int(beside["offset"]), int(beside["length"])
            numbers = (version / beside["location"]).read_bytes()[start : start + length]
        else:
            numbers = fields[RAW_DATA]
        table = _Table(_name(tensor), columns, numbers)
        if _numbers(fields[DATA_TYPE]) != [FLOAT] or len(numbers) != rows * table.row_bytes:
            raise ValueError(f"{table.name} is no table of numbers in single precision")
        return table

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * (self.columns[0] if self.columns else 1)

    def pieces(self, rows: int) -> Iterator[bytes | memoryview]:
        """The bytes of the table with so many rows, and what comes behind it up to where another one may begin."""
        yield self.numbers
        left = rows * self.row_bytes - len(self.numbers)
        if left < 0:
            raise ValueError(f"{self.name} has more than {rows} rows already")
        generator = random.Random(self.name)
        block = array.array("f", (generator.uniform(-0.1, 0.1) for _ in range(BLOCK_NUMBERS))).tobytes()
        # The same ones again and again: nobody looks at them, and to make others would take longer than to write them.
        block *= BLOCK_REPEATS
        for _ in range(left // len(block)):
            yield block
        yield memoryview(block)[: left % len(block)]
        yield bytes(-rows * self.row_bytes % ALIGNMENT)

    def beside(self, rows: int, offset: int) -> bytes:
        """The tensor, of so many rows that lie at `offset` of the file beside the model."""
        place = {"location": DATA, "offset": str(offset), "length": str(rows * self.row_bytes)}
        fields = [
            (DIMS, b"".join(_varint(length) for length in (rows, *self.columns))),
            (DATA_TYPE, _varint(FLOAT)),
            (NAME, self.name.encode()),
            *((EXTERNAL_DATA, _message([(KEY, k.encode()), (VALUE, v.encode())])) for k, v in place.items()),
            (DATA_LOCATION, _varint(EXTERNAL)),
        ]
        return _message(fields)


def _tensors(model: bytes) -> Iterator[bytes]:
    """The initialisers of the model's graph."""
    return (value for tag, value in _fields(dict(_fields(model))[GRAPH]) if tag == INITIALIZER)


def _with_tensors(model: bytes, tensors: dict[str, bytes]) -> bytes:
    """The model with these initialisers in place of those of the same names."""

    def graph(value: bytes) -> bytes:
        fields = _fields(value)
        return _message((tag, tensors.get(_name(each), each) if tag == INITIALIZER else each) for tag, each in fields)

    return _message((tag, graph(value) if tag == GRAPH else value) for tag, value in _fields(model))


def _name(tensor: bytes) -> str:
    return dict(_fields(tensor))[NAME].decode()


def _entry(entry: bytes) -> tuple[str, str]:
    fields = dict(_fields(entry))
    return fields[KEY].decode(), fields[VALUE].decode()


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message in their order, each by its number and its kind together; a number as it is written."""
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        if tag & 7 == VARINT:
            _, end = _read_varint(message, place)
        elif tag & 7 == BYTES:
            length, place = _read_varint(message, place)
            end = place + length
        else:
            raise ValueError("a field of four or eight bytes, which the trainer's models do not have")
        yield tag, message[place:end]
        place = end


def _message(fields: Iterable[tuple[int, bytes]]) -> bytes:
    made = bytearray()
    for tag, value in fields:
        made += _varint(tag)
        if tag & 7 == BYTES:
            made += _varint(len(value))
        made += value
    return bytes(made)


def _numbers(packed: bytes) -> list[int]:
    numbers, place = [], 0
    while place < len(packed):
        number, place = _read_varint(packed, place)
        numbers.append(number)
    return numbers


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


def _varint(number: int) -> bytes:
    made = bytearray()
    while number >= 128:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


MODEL, DATA = "model.onnx", "model.onnx.data"
VARINT, BYTES = 0, 2
GRAPH = 7 << 3 | BYTES
INITIALIZER = 5 << 3 | BYTES
DIMS, DATA_TYPE, DATA_LOCATION = 1 << 3 | BYTES, 2 << 3 | VARINT, 14 << 3 | VARINT
NAME, RAW_DATA, EXTERNAL_DATA = 8 << 3 | BYTES, 9 << 3 | BYTES, 13 << 3 | BYTES
KEY, VALUE = 1 << 3 | BYTES, 2 << 3 | BYTES
FLOAT, EXTERNAL = 1, 1
ALIGNMENT = 64 << 10
"""As the trainer lays tables out."""
BLOCK_NUMBERS, BLOCK_REPEATS = 1 << 16, 16
"""4 MiB in all."""
