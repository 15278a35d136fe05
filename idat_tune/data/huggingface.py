"""Hugging Face data sets on disk: saved, in the cache, or as Parquet files; read without their library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from idat_tune.data import official, own
from idat_tune.data.own import SPLIT_NAMES, Row
from idat_tune.data.sources import Choices, Item, Source, check_label, check_sizes, key
from idat_tune.data.tables import Rows
from idat_tune.errors import BadInput
from idat_tune.tasks import Task

_SPLIT_IN_NAME = re.compile(rf"(?:^|[-_])({'|'.join(SPLIT_NAMES)})(?:-\d+-of-\d+.*)?$")
_IMAGES = ("image", "img", "jpg", "png", "webp")
_LABELS = ("label", "fine_label", "labels", "class", "cls")


def is_huggingface(path: Path) -> bool:
    """Whether a folder has Arrow or Parquet files such as the library writes."""
    return next(_files(path), None) is not None


def find(path: Path, task: Task, any_size: bool) -> Source:
    """A benchmark's task, by the official slices.

    The rows must stand in the order of TFDS: the counts of slices and splits are checked, the order cannot be.

    Raises:
        BadInput: a split, column or row is missing; labels that cannot be.
    """
    splits = _splits(path)
    where = official.OFFICIAL[task.name]
    names: dict[str, list[int]] = {}
    for split in ("train", "val", "test"):
        rows = where.rows(split)
        if rows.split not in splits:
            raise BadInput(f"{path} has no split '{rows.split}', which {task.name} needs; found: {', '.join(splits)}")
        names[split] = list(range(len(splits[rows.split])))[rows.first : rows.last]
    sizes = {split: len(rows) for split, rows in names.items()}
    stand_in = check_sizes(task, sizes, any_size, str(path))

    def items(split: str) -> Iterator[Item]:
        rows = splits[where.rows(split).split]
        image = _column(rows, _IMAGES)
        used = [name for name in official.features(task.name) if name in rows.columns]
        first, last = names[split][0], names[split][-1] + 1
        for i, row in zip(names[split], rows.values(used, first, last), strict=True):
            label = check_label(official.label(task.name, row, rows.name(i)), task.classes, rows.name(i))
            yield Item(rows.name(i), label, partial(_image, task.name, rows, i, image))

    asked = key("huggingface", task.name, str(path), {name: len(rows) for name, rows in splits.items()}, any_size)
    return Source(task, "huggingface", str(path), asked, sizes, items, stand_in, (_ORDER,))


_ORDER = "rows were taken by their place, as TFDS orders them; whether this copy does cannot be seen from it"


def own_task(path: Path, name: str, choices: Choices) -> Source:
    """A task of the user's own; its splits are used where it has a test split, else it is divided."""
    splits = _splits(path)
    rows: list[Row] = []
    names: tuple[str, ...] = ()
    for split, found in splits.items():
        image, column = _column(found, _IMAGES), _column(found, _LABELS)
        names = names or found.class_names(column)
        for i, value in enumerate(found.values([column])):
            read = partial(found.image, i, image)
            one_split = own.SPLITS_BY_NAME[split] if len(splits) > 1 else None
            rows.append(Row(found.name(i), value[column], read, one_split, found.name(i)))
    return own.source("huggingface", path, name, rows, names, choices)


def _image(task: str, rows: Rows, i: int, column: str) -> bytes:
    return official.image(task, rows.image(i, column))


def _column(rows: Rows, known: tuple[str, ...]) -> str:
    for name in known:
        if name in rows.columns:
            return name
    raise BadInput(f"{rows.files[0]} has no column {known[0]}; its columns: {', '.join(rows.columns)}")


def _splits(path: Path) -> dict[str, Rows]:
    """The rows of each split under its TFDS name: train, validation, test."""
    found: dict[str, dict[Path, list[Path]]] = {}
    for file in sorted(_files(path)):
        split = own.OFFICIAL_NAME[_split_of(file)]
        found.setdefault(split, {}).setdefault(file.parent, []).append(file)
    for split, folders in found.items():
        if len(folders) > 1:
            raise BadInput(f"{path} has the split {split} more than once: {' and '.join(map(str, folders))}; name one")
    return {split: Rows(next(iter(folders.values()))) for split, folders in found.items()}


def _split_of(file: Path) -> str:
    in_name = _SPLIT_IN_NAME.search(file.stem)
    name = in_name.group(1) if in_name else file.parent.name
    return own.SPLITS_BY_NAME.get(name, "train")


def _files(path: Path) -> Iterator[Path]:
    for file in path.rglob("*"):
        if file.suffix in (".arrow", ".parquet") and not file.name.startswith(("cache-", "tmp")):
            yield file
