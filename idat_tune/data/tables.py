"""Rows of Arrow and Parquet files on disk, with images in a column; read piece by piece."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idat_tune.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa


SUFFIXES = (".parquet", ".arrow", ".feather")


class Rows:
    """The rows of some files, one after another.

    Files are Parquet, or Arrow streams as the `datasets` library of Hugging Face writes them.
    """

    def __init__(self, files: Sequence[Path]):
        self.files = list(files)
        self._pieces: list[Callable[[list[str]], pa.Table]] = []  # each reads some columns of some rows
        self._starts: list[int] = []  # first row of each piece
        self._files: list[int] = []  # first row of each file
        self._length = 0
        self._held: tuple[int, str, pa.Table] | None = None  # piece and column read last
        self._lock = threading.Lock()
        self.schema: pa.Schema = None
        for file in self.files:
            self._add(file)

    def __len__(self) -> int:
        return self._length

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def column(self, name: str) -> list[Any]:
        """The cells of one column."""
        return [row[name] for row in self.values([name])]

    def embeds(self, column: str) -> bool:
        """Whether a column holds encoded images, rather than paths.

        Raises:
            BadInput: it holds neither.
        """
        import pyarrow.types as types

        held = self.schema.field(column).type
        held = getattr(held, "storage_type", held)  # of an extension
        held = held.value_type if types.is_dictionary(held) else held
        if types.is_struct(held) and {"bytes", "path"} & {held.field(i).name for i in range(held.num_fields)}:
            return self._length == 0 or self.values([column], 0, 1)[0][column].get("bytes") is not None
        # By name, since these have no common test: binary, large_binary, fixed_size_binary[16], string_view, ...
        if not types.is_nested(held) and "binary" in str(held):
            return True
        if not types.is_nested(held) and "string" in str(held):
            return False
        raise BadInput(f"{self.files[0]}: the column {column} holds {held}, which is neither paths nor encoded images")

    def values(self, columns: list[str], first: int = 0, last: int | None = None) -> list[dict[str, Any]]:
        """Some columns of rows `first` to `last` (exclusive)."""
        last = self._length if last is None else min(last, self._length)
        found: list[dict[str, Any]] = []
        for start, end, read in self._spans():
            if start < last and end > first:
                rows = read(columns).slice(max(0, first - start), min(end, last) - max(start, first))
                found += rows.to_pylist()
        return found

    def image(self, row: int, column: str) -> bytes:
        """The encoded image in a row; neighbouring rows are read together."""
        with self._lock:
            piece = bisect_right(self._starts, row) - 1
            if self._held is None or self._held[:2] != (piece, column):
                self._held = (piece, column, self._pieces[piece]([column]))
            cell = self._held[2].column(column)[row - self._starts[piece]].as_py()
        encoded = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(encoded, bytes):
            raise BadInput(f"{self.where(row)} has no encoded image in column {column}")
        return encoded

    def where(self, row: int) -> str:
        """The file and the row in it, for messages."""
        file = bisect_right(self._files, row) - 1
        return f"{self.files[file]} row {row - self._files[file]}"

    def class_names(self, column: str) -> tuple[str, ...]:
        """What a Hugging Face data set calls the labels in a column, if it says so."""
        try:
            about = json.loads((self.schema.metadata or {})[b"huggingface"])
            return tuple(str(name) for name in about["info"]["features"][column]["names"])
        except (KeyError, ValueError, TypeError):
            return ()

    def _spans(self) -> list[tuple[int, int, Callable[[list[str]], pa.Table]]]:
        ends = [*self._starts[1:], self._length][: len(self._starts)]  # a table may have no rows
        return list(zip(self._starts, ends, self._pieces, strict=True))

    def _add(self, file: Path) -> None:
        import pyarrow as pa

        try:
            schema, pieces = _arrow(file) if file.suffix.lower() in (".arrow", ".feather") else _parquet(file)
        except (pa.ArrowException, OSError) as failure:
            raise BadInput(f"{file} cannot be read: {failure}") from None
        if self.schema is not None and self.schema.names != schema.names:
            raise BadInput(f"{file} has other columns than {self.files[0]}")
        self.schema = self.schema or schema
        self._files.append(self._length)
        for rows, read in pieces:
            if rows:
                self._starts.append(self._length)
                self._pieces.append(read)
                self._length += rows


def _arrow(file: Path) -> tuple[Any, list[tuple[int, Callable[[list[str]], Any]]]]:
    import pyarrow as pa

    source = pa.memory_map(str(file))
    try:
        table = pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        table = pa.ipc.open_file(source).read_all()
    return table.schema, [(table.num_rows, table.select)]


def _parquet(file: Path) -> tuple[Any, list[tuple[int, Callable[[list[str]], Any]]]]:
    from pyarrow.parquet import ParquetFile

    opened = ParquetFile(file, memory_map=True)

    def group(i: int) -> Callable[[list[str]], Any]:
        return lambda columns: opened.read_row_group(i, columns=columns)

    groups = range(opened.num_row_groups)
    return opened.schema_arrow, [(opened.metadata.row_group(i).num_rows, group(i)) for i in groups]
