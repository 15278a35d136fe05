"""A split as a Parquet file of encoded images: columns image (binary), label, path; readable by any Parquet tool."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idat_tune.data import files
from idat_tune.errors import BadInput

_KEY = b"idat-tune"  # in the schema's metadata, a JSON object
_GROUP_IMAGES = 256  # at most so many images in a row group
_GROUP_BYTES = 32 * 2**20  # and about so many bytes


@dataclass(frozen=True)
class Encoded:
    """One image as its file has it."""

    name: str  # where it came from, for messages
    image: bytes
    label: int


def write(path: Path, images: Iterable[Encoded], about: dict[str, Any]) -> None:
    """Write a split; the file appears only when whole.

    Args:
        path: the file.
        images: in the order of the split.
        about: what the schema's metadata says of them (task, class names, provenance), as JSON has it.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    fields = [("image", pa.binary()), ("label", pa.int64()), ("path", pa.string())]
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])
    schema = schema.with_metadata({_KEY: json.dumps(about)})
    # Images are compressed already; a dictionary or statistics over them would only cost time and room.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": ["label"]}
    with files.whole(path) as file, ParquetWriter(file, schema, **options) as writer:
        for group in _groups(images):
            columns = [[one.image for one in group], [one.label for one in group], [one.name for one in group]]
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
            for rows in file.iter_batches(batch, columns=["image", "label", "path"]):
                images, labels, names = (rows.column(i).to_pylist() for i in range(3))
                yield [Encoded(*one) for one in zip(names, images, labels, strict=True)]
    except (pa.ArrowException, OSError) as failure:
        raise BadInput(f"{path} cannot be read: {failure}") from None


def about(path: Path) -> dict[str, Any]:
    """What the schema's metadata says of a split; empty where it says nothing."""
    with _open(path) as file:
        return json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}"))


def _open(path: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(path, memory_map=True)


def _groups(images: Iterable[Encoded]) -> Iterator[list[Encoded]]:
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
