"""TFDS data sets on disk, by the official slices; needs the extra `tfds`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from idat_tune.data import official
from idat_tune.data.official import Rows
from idat_tune.data.sources import Item, Source, check_label, check_sizes, key
from idat_tune.errors import BadInput
from idat_tune.tasks import Task

Reader = Callable[[Rows], Iterator[Mapping[str, Any]]]  # rows with the features of TFDS, image encoded


def is_tfds(path: Path) -> bool:
    """Whether a folder is a data directory of TFDS."""
    return any(next(path.glob("*/" * depth + "features.json"), None) for depth in range(5))


def there(path: Path, names: list[str]) -> list[str]:
    """Those of the tasks whose data set a TFDS data directory has."""
    return [name for name in names if (path / _data_set(name)).is_dir()]


def find(path: Path, task: Task, any_size: bool) -> Source:
    """A benchmark's task, from the version of its data set that the benchmark names.

    Raises:
        BadInput: the extra is not installed, or the data set is not there.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise BadInput("reading TFDS needs its library; install it with `pip install 'idat-tune[tfds]'`") from None
    name = official.OFFICIAL[task.name].tfds
    try:
        builder = tfds.builder(name, data_dir=str(path))
        sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    except Exception as failure:  # the library's own errors, which differ by version
        raise BadInput(f"{path} has no prepared {name}: {str(failure).splitlines()[0]}") from None

    def read(rows: Rows) -> Iterator[Mapping[str, Any]]:
        # timm's reader would decode the images, and one would have to encode them anew; here they stay as they are.
        skip = {"image": tfds.decode.SkipDecoding()}
        asked = f"{rows.split}[{rows.first}:{'' if rows.last is None else rows.last}]"
        yield from tfds.as_numpy(builder.as_dataset(split=asked, shuffle_files=False, decoders=skip))

    return sliced(task, read, sizes, f"{path}/{name}", any_size)


def sliced(task: Task, read: Reader, sizes: Mapping[str, int], where: str, any_size: bool) -> Source:
    """A task from rows shaped as TFDS has them; `sizes` are those of the source's splits."""
    wanted = {split: official.OFFICIAL[task.name].rows(split) for split in ("train", "val", "test")}
    counts: dict[str, int] = {}
    for split, rows in wanted.items():
        if rows.split not in sizes:
            raise BadInput(f"{where} has no split '{rows.split}', which {task.name} needs; found: {', '.join(sizes)}")
        counts[split] = len(range(sizes[rows.split])[rows.first : rows.last])
    stand_in = check_sizes(task, counts, any_size, where)

    def items(split: str) -> Iterator[Item]:
        for i, row in enumerate(read(wanted[split]), start=wanted[split].first):
            name = f"{where} {wanted[split].split} {i}"
            label = check_label(official.label(task.name, row, name), task.classes, name)
            yield Item(name, label, lambda row=row: official.image(task.name, bytes(row["image"])))  # type: ignore[misc]

    asked = key("tfds", task.name, where, dict(sizes), any_size)
    return Source(task, "tfds", where, asked, counts, items, stand_in)


def _data_set(task: str) -> str:
    return official.OFFICIAL[task].tfds.split(":")[0].split("/")[0]
