"""A split as a Parquet file of encoded images: columns image, label, path, group; readable by any Parquet tool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idat_tune.data import files
from idat_tune.errors import BadInput

_KEY = b"idat-tune"  # in the schema's metadata, a JSON object
_GROUP = "group"  # a column that older stores do not have
_GROUP_IMAGES = 256  # at most so many images in a row group
_GROUP_BYTES = 32 * 2**20  # and about so many bytes


@dataclass(frozen=True)
class Encoded:
    """One image as its file has it."""

    name: str  # where it came from, for messages
    image: bytes
    label: int
    group: str | None = None  # images of one group stay together, in splits and in folds


def write(path: Path, images: Iterable[Encoded], about: dict[str, Any]) -> None:
    """Write a split; the file appears only when whole.

    Args:
        path: the file.
        images: in the order of the split.
        about: what the schema's metadata says of them (task, class names, provenance), as JSON has it.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    fields = [("image", pa.binary()), ("label", pa.int64()), ("path", pa.string()), (_GROUP, pa.string())]
    schema = pa.schema([pa.field(name, kind, nullable=name == _GROUP) for name, kind in fields])
    schema = schema.with_metadata({_KEY: json.dumps(about)})
    # Images are compressed already; a dictionary or statistics over them would only cost time and room.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": ["label"]}
    with files.whole(path) as file, ParquetWriter(file, schema, **options) as writer:
        for group in _row_groups(images):
            columns = zip(*((one.image, one.label, one.name, one.group) for one in group), strict=True)
            arrays = [pa.array(column, kind) for column, (_, kind) in zip(columns, fields, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def read(path: Path, batch: int = _GROUP_IMAGES) -> Iterator[list[Encoded]]:
    """The images of a split in order, up to `batch` at a time.

    Raises:
        BadInput: the file is missing or damaged.
    """
    import pyarrow as pa

    try:
        with _open(path) as file:
            for rows in file.iter_batches(batch, columns=["path", "image", "label", *_group_column(file)]):
                rows = rows.to_pylist()
                yield [Encoded(row["path"], row["image"], row["label"], row.get(_GROUP)) for row in rows]
    except (pa.ArrowException, OSError) as failure:
        raise BadInput(f"{path} cannot be read: {failure}") from None


def groups(path: Path) -> list[str | None]:
    """The group of each image of a split; none have one in stores that are older than groups.

    Raises:
        BadInput: the file is missing or damaged.
    """
    import pyarrow as pa

    try:
        with _open(path) as file:
            if not _group_column(file):
                return [None] * file.metadata.num_rows
            found: list[str | None] = file.read([_GROUP]).column(0).to_pylist()
            return found
    except (pa.ArrowException, OSError) as failure:
        raise BadInput(f"{path} cannot be read: {failure}") from None


def labels(path: Path) -> list[int]:
    """The labels of a split in order, without reading its images; raises BadInput where the file is damaged."""
    import pyarrow as pa

    try:
        with _open(path) as file:
            found: list[int] = file.read(columns=["label"]).column(0).to_pylist()
            return found
    except (pa.ArrowException, OSError) as failure:
        raise BadInput(f"{path} cannot be read: {failure}") from None


def about(path: Path) -> dict[str, Any]:
    """What the schema's metadata says of a split; empty where it says nothing."""
    with _open(path) as file:
        return json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}"))


def _open(path: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(path, memory_map=True)


def _group_column(file: Any) -> list[str]:
    return [_GROUP] if _GROUP in file.schema_arrow.names else []


def _row_groups(images: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    group: list[Encoded] = []
    size = 0
    for one in images:
        group.append(one)
        size += len(one.image)
        if len(group) == _GROUP_IMAGES or size > _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
