"""A task from a list: a CSV, TSV or Parquet file of paths (or images), labels and maybe splits."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

from idat_tune.data.own import SPLITS_BY_NAME, Row, source
from idat_tune.data.sources import Choices, Source, read_file, safe
from idat_tune.data.tables import Rows
from idat_tune.errors import BadInput

_PATHS = ("path", "image", "file", "filename", "file_name", "image_path")
_LABELS = ("label", "class", "target")


def from_list(path: Path, name: str, choices: Choices) -> Source:
    """A CSV, TSV or Parquet file with the columns path (or image), label and, if it likes, split.

    Paths are relative to the folder of the file; a Parquet file may hold the encoded images themselves.

    Raises:
        BadInput: columns, paths or labels that cannot be used; names the line.
    """
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _csv_rows(path)
    return source("list", path, name, rows, (), choices)


def _csv_rows(path: Path) -> list[Row]:
    rows: list[Row] = []
    first: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            columns = _columns(path, [name or "" for name in reader.fieldnames or ()])
            for record in reader:
                if any(record.values()):
                    rows.append(_listed(path, record, columns, f"{path} line {reader.line_num}", first))
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a text file in UTF-8") from None
    except csv.Error as failure:
        raise BadInput(f"{path} is not a list: {failure}") from None
    return _some(rows, path)


def _parquet_rows(path: Path) -> list[Row]:
    import pyarrow as pa

    table = Rows([path])
    columns = _columns(path, table.columns)
    embedded = not pa.types.is_string(table.schema.field(columns[0]).type)
    rows: list[Row] = []
    first: dict[str, str] = {}
    for i, record in enumerate(table.values([name for name in columns[embedded:] if name])):
        where = f"{path} row {i}"
        if embedded:
            split = _split(record.get(columns[2]), where)
            rows.append(Row(where, record[columns[1]], partial(table.image, i, columns[0]), split, where))
        else:
            rows.append(_listed(path, record, columns, where, first))
    return _some(rows, path)


def _some(rows: list[Row], path: Path) -> list[Row]:
    if not rows:
        raise BadInput(f"{path} lists no images")
    return rows


def _columns(path: Path, found: list[str]) -> tuple[str, str, str]:
    """The names of the columns of paths, labels and splits; the last is empty where there is none."""
    lower = {name.strip().lower(): name for name in reversed(found)}
    image = next((lower[name] for name in _PATHS if name in lower), None)
    label = next((lower[name] for name in _LABELS if name in lower), None)
    if image is None or label is None:
        raise BadInput(f"{path} needs the columns path and label; it has: {', '.join(found) or 'none'}")
    return image, label, lower.get("split", "")


def _listed(
    path: Path, record: dict[str, Any], columns: tuple[str, str, str], where: str, first: dict[str, str]
) -> Row:
    image, label = record[columns[0]], record[columns[1]]
    if None in (image, label) or None in record:
        raise BadInput(f"{where}: not as many fields as there are columns")
    relative = safe(str(image).strip(), where)
    if relative in first:
        raise BadInput(f"{where}: '{relative}' is listed already, in {first[relative]}")
    first[relative] = where
    file = path.parent / relative
    if not file.is_file():
        raise BadInput(f"{where}: '{relative}' is missing in {path.parent}")
    split = _split(record.get(columns[2]), where) if columns[2] else None
    label = str(label).strip()
    if label.removeprefix("-").isdecimal():
        label = int(label)
    return Row(str(file), label, partial(read_file, file), split, where, file.stat().st_size)


def _split(value: Any, where: str) -> str | None:
    if value is None or not str(value).strip():
        return None
    name = str(value).strip().lower()
    if name not in SPLITS_BY_NAME:
        raise BadInput(f"{where}: '{value}' is no split; known: {', '.join(SPLITS_BY_NAME)}")
    return SPLITS_BY_NAME[name]
