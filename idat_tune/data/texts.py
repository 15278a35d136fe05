"""Tables as text: CSV and its kin, JSON lines, and bare lists of paths and labels."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from idat_tune.data import columns
from idat_tune.data.labels import quoted
from idat_tune.data.pixels import SUFFIXES
from idat_tune.errors import BadInput

_DELIMITERS = ",;\t|"
_BARE = ("path", "label")  # the columns of a list without names of columns


class Text:
    """The rows of a text file, all with the same columns."""

    def __init__(self, path: Path):
        """Read the file.

        Raises:
            BadInput: it is no text, or no table; names the line.
        """
        self.path = path
        self.notes: list[str] = []
        self.columns: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._lines: list[int] = []
        kind = path.suffix.lower()
        text = self._decoded()
        found = self._json_lines(text) if kind in (".jsonl", ".ndjson") else self._delimited(text, kind)
        for line, row in found:
            self._lines.append(line)
            self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str) -> list[Any]:
        """The cells of a column."""
        return [row.get(name) for row in self._rows]

    def where(self, row: int) -> str:
        """File and line of a row."""
        return f"{self.path} line {self._lines[row]}"

    def _decoded(self) -> str:
        raw = self.path.read_bytes()
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            encodings = ["utf-16"]  # as Excel's "Unicode text"
        elif b"\0" in raw:
            encodings = []
        else:
            encodings = ["utf-8-sig", "cp1252"]
        for encoding in encodings:
            try:
                text = raw.decode(encoding)
            except UnicodeDecodeError:
                continue
            if encoding == "cp1252":
                self.notes.append(
                    f"{self.path.name} is not in UTF-8 and was read as Windows-1252 (Latin-1); if letters are wrong, "
                    "save it as UTF-8"
                )
            return text
        raise BadInput(f"{self.path} is not a text file; save the table as CSV in UTF-8")

    def _json_lines(self, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise BadInput(f"{self.path} line {number} is not JSON") from None
            if not isinstance(row, dict):
                raise BadInput(f'{self.path} line {number} is not a JSON object such as {{"path": .., "label": ..}}')
            self.columns += [name for name in row if name not in self.columns]
            yield number, row

    def _delimited(self, text: str, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
        first, _, rest = text.partition("\n")
        marked = first.strip().lower().startswith("sep=")  # as Excel writes and reads it
        text = rest if marked else text
        head = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = self._delimiter(head, kind)
        names = next(csv.reader([head], delimiter=delimiter), [])
        headless = any(self._is_image(name) for name in (*names, *head.split()))
        if kind == ".txt" and (headless or len(names) == 1 < len(head.split())):
            return self._bare(text, head)
        if headless:
            raise BadInput(
                f"{self.path} has no line with the names of its columns: it begins with {quoted(head.strip())}; "
                "put a line such as path,label above it"
            )
        return self._table(text, delimiter, skipped=int(marked))

    def _table(self, text: str, delimiter: str, skipped: int) -> Iterator[tuple[int, dict[str, Any]]]:
        # Strict, or a quote that nobody closed would take all lines that follow into one cell.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
        line = skipped
        try:
            for cells in reader:
                line = reader.line_num + skipped
                if not any(cell.strip() for cell in cells):
                    continue
                if not self.columns:
                    self.columns = [cell.strip() for cell in cells]
                    continue
                while len(cells) > len(self.columns) and not cells[-1].strip():
                    cells.pop()
                if len(cells) != len(self.columns):
                    raise BadInput(
                        f"{self.path} line {line}: not as many fields as there are columns ({len(cells)}, "
                        f"{len(self.columns)}); put what has the separator '{delimiter}' in it into quotes"
                    )
                yield line, dict(zip(self.columns, cells, strict=True))
        except csv.Error as failure:
            raise BadInput(
                f"{self.path} line {line + 1} is not one of a list ({failure}); is a quote left open in it?"
            ) from None

    def _delimiter(self, head: str, kind: str) -> str:
        candidates = sorted(_DELIMITERS, key=lambda one: one != "\t") if kind == ".tsv" else list(_DELIMITERS)
        try:
            return max(candidates, key=lambda one: len(next(csv.reader([head], delimiter=one), [])))
        except csv.Error as failure:
            raise BadInput(f"{self.path} is not a list: {failure}") from None

    def _is_image(self, cell: str) -> bool:
        return PurePath(cell).suffix.lower() in SUFFIXES

    def _bare(self, text: str, head: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Lines of a path, which may have spaces, and a label."""
        self.columns = list(_BARE)
        lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if columns.names_paths(head.split()[0]):
            lines.pop(0)
        separator = next((one for one in "\t,;" if lines and self._parts(lines[0][1], one)), None)
        for number, line in lines:
            parts = line.rsplit(separator, 1)
            if len(parts) != len(_BARE):
                raise BadInput(f"{self.path} line {number} is not a path and a label: {quoted(line)}")
            yield number, dict(zip(_BARE, parts, strict=True))

    def _parts(self, line: str, separator: str) -> bool:
        before, found, _ = line.rpartition(separator)
        return bool(found) and self._is_image(before.strip())
