"""A task from a list: a table, as text, Parquet or Arrow, of paths (or images), labels and maybe splits and groups."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from idat_tune.data import columns, labels
from idat_tune.data.columns import NO_SPLITS, Columns
from idat_tune.data.own import SPLITS_BY_NAME, Row, source
from idat_tune.data.pixels import SUFFIXES
from idat_tune.data.sources import Choices, Source, read_file, safe
from idat_tune.data.tables import SUFFIXES as BINARY
from idat_tune.data.tables import Rows
from idat_tune.data.texts import Text
from idat_tune.errors import BadInput

LISTS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", *BINARY)  # suffixes of files that are lists
_EMBEDDED = object()  # the cell holds an image, which is read when its turn comes
_WAY_OUT = "; --allow-outside takes such paths"


def from_list(path: Path, name: str, choices: Choices) -> Source:
    """A table with the columns path (or image), label and, if it likes, split; text, Parquet or Arrow.

    Paths are relative to the folder of the file; a Parquet file may hold the encoded images themselves.

    Raises:
        BadInput: columns, paths or labels that cannot be used; names the line.
    """
    if choices.group_pattern:
        raise BadInput("--group-pattern is for folders; of a list, --group-column names the column of groups")
    table: Rows | Text = Rows([path]) if path.suffix.lower() in BINARY else Text(path)
    found = columns.find(table, choices, str(path))
    listed = Listed(table, found, choices, path.parent)
    if not listed.rows:
        raise BadInput(f"{path} lists no images")
    notes = (*(table.notes if isinstance(table, Text) else ()), *found.notes, *listed.notes)
    return source("list", path, name, listed.rows, listed.class_names, choices, notes, listed.left_out)


class Listed:
    """The images that a table lists."""

    def __init__(self, table: Rows | Text, found: Columns, choices: Choices, folder: Path, split: str | None = None):
        """Look up every row.

        Args:
            table: the rows.
            found: what its columns are.
            choices: whether paths may lead anywhere.
            folder: what paths are relative to.
            split: of all rows, where no column says it.

        Raises:
            BadInput: an image, label or split that cannot be used; names the row.
        """
        self.table, self.found, self.choices, self.folder = table, found, choices, folder
        self.class_names = table.class_names(found.label) if isinstance(table, Rows) and found.label else ()
        self.rows: list[Row] = []
        self._first: dict[str, Row] = {}
        self._repeated: list[str] = []
        self._stems: dict[Path, dict[str, list[str]]] = {}  # names of images without suffix, by folder
        self._completed: list[str] = []
        self._ungrouped = 0
        count = len(table)
        given = self.found.labels(table)
        splits = self._splits(count) if found.split else [split] * count
        groups = self._groups(table.column(found.group)) if found.group else [None] * count
        embedded = isinstance(table, Rows) and table.embeds(found.image)
        images = [_EMBEDDED] * count if embedded else table.column(found.image)
        for i, (cell, image, in_split, group) in enumerate(zip(given, images, splits, groups, strict=True)):
            where, names = table.where(i), self.class_names
            label = labels.named(cell, names, where) if names else labels.text(cell, where)
            self._add(i, image, label, in_split, group)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences worth knowing."""
        found = []
        if self._completed:
            found.append(f"{len(self._completed)} names without suffix were completed, such as {self._completed[0]}")
        if self._ungrouped:
            found.append(f"{self._ungrouped} rows without a {self.found.group} stand for themselves")
        return tuple(found)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Sentences on rows that were not taken."""
        if not self._repeated:
            return ()
        return (f"{len(self._repeated)} rows that repeat an earlier one, such as {self._repeated[0]}",)

    def _add(self, i: int, image: Any, label: str, split: str | None, group: str | None) -> None:
        where = self.table.where(i)
        if isinstance(image, dict):
            image = image.get("path") if image.get("bytes") is None else _EMBEDDED
        if isinstance(self.table, Rows) and image is _EMBEDDED:
            read = partial(self.table.image, i, self.found.image)
            self.rows.append(Row(where, label, read, split, where, group=group))
            return
        file = self._file("" if labels.is_missing(image) else str(image).strip(), where)
        row = Row(str(file), label, partial(read_file, file), split, where, file.stat().st_size, group)
        first = self._first.setdefault(row.name, row)
        if first is not row and (first.label, first.group) == (label, group):
            if first.split != split:
                shown = labels.quoted(image)
                raise BadInput(f"{where}: {shown} is listed already, in {first.where}, for {first.split}; keep one")
            self._repeated.append(where)
            return
        self.rows.append(row)

    def _file(self, given: str, where: str) -> Path:
        path = given if self.choices.allow_outside and given else safe(given, where, _WAY_OUT)
        written = (path, path.replace("\\", "/"))
        # Archives made on a Mac have names in decomposed Unicode.
        forms = (*written, *(unicodedata.normalize(form, name) for name in written for form in ("NFC", "NFD")))
        for name in dict.fromkeys(forms):  # most often they are all one
            file = Path(os.path.normpath(self.folder / name))
            if file.is_file():
                return file
        completed = self._completion(Path(os.path.normpath(self.folder / path.replace("\\", "/"))), where)
        if completed is None:
            raise BadInput(f"{where}: {labels.quoted(given)} is missing in {self.folder}; {self._elsewhere(path)}")
        self._completed.append(f"{labels.quoted(given)} ({completed.name})")
        return completed

    def _elsewhere(self, path: str) -> str:
        """The way out where a file is missing: most often the list lies above the folder that it means."""
        name = path.replace("\\", "/").rpartition("/")[2]
        for found in self.folder.rglob("*"):
            if name in (found.name, found.stem) and found.suffix.lower() in SUFFIXES:
                place = found.parent.relative_to(self.folder)
                return f"it is in {place} there: move the list into that folder, or write the folder before its paths"
        return "paths are relative to the folder of the list"

    def _completion(self, file: Path, where: str) -> Path | None:
        """The one image that is called like `file`, with a suffix."""
        if file.parent not in self._stems:
            stems = self._stems[file.parent] = {}
            for one in sorted(file.parent.iterdir()) if file.parent.is_dir() else ():
                if one.suffix.lower() in SUFFIXES:
                    stems.setdefault(one.stem, []).append(one.name)
        there = self._stems[file.parent].get(file.name, [])
        if len(there) > 1:
            raise BadInput(f"{where}: '{file.name}' may be {' or '.join(there)} in {file.parent}; add the suffix")
        return file.with_name(there[0]) if there else None

    def _splits(self, count: int) -> list[str | None]:
        name = self.found.split or ""
        cells = self.table.column(name)
        found: list[str | None] = []
        for i in range(count):
            if labels.is_missing(cells[i]):
                found.append(None)
                continue
            split = SPLITS_BY_NAME.get(str(cells[i]).strip().lower())
            if split is None:
                raise BadInput(
                    f"{self.table.where(i)}: {labels.quoted(cells[i])} in column '{name}' is no split; known: "
                    f"{', '.join(SPLITS_BY_NAME)} (--split-column names another column, or {NO_SPLITS})"
                )
            found.append(split)
        return found

    def _groups(self, cells: Sequence[Any]) -> list[str | None]:
        self._ungrouped = sum(map(labels.is_missing, cells))
        return [None if labels.is_missing(cell) else labels.tidy(str(cell)) for cell in cells]
