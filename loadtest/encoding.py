"""What the engine is given in place of a row's ids: rows of the model's table. Peers are asked in these."""

from dataclasses import dataclass
from pathlib import Path

from protocol import MODEL


@dataclass(frozen=True)
class Encoding:
    """The vocabularies of a version of the model under test."""

    users: dict[str, int]
    items: dict[str, int]

    @staticmethod
    def read(version: Path) -> "Encoding":
        """Those in the folder of a version."""
        return Encoding(
            _read(version / "features/user_id.vocabulary"), _read(version / "features/item_id.vocabulary")
        )

    @property
    def first_item(self) -> int:
        """The table's row of the first known item: users come before, and row 0 of each is for strangers."""
        return 1 + len(self.users) + 1

    def encode(self, row: list[int]) -> list[int]:
        """The table's rows of a known user and a known item."""
        user, item = row
        return [self.users[str(user)], self.first_item - 1 + self.items[str(item)]]


def newest(repository: Path) -> Path:
    """The folder of the version that answers where nothing else is asked for."""
    # The publisher's lock lies beside the versions.
    versions = (path for path in (repository / MODEL).iterdir() if path.name.isdigit())
    return max(versions, key=lambda version: int(version.name))


def _read(vocabulary: Path) -> dict[str, int]:
    lines = vocabulary.read_text(encoding="utf-8").splitlines()
    return {identifier: number for number, identifier in enumerate(lines, start=1)}
