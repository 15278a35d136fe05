"""Hugging Face data sets on disk: saved, in the cache, or as Parquet files; read without their library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from idat_tune.data import columns, official, own, trees
from idat_tune.data.columns import NO_SPLITS
from idat_tune.data.lists import Listed
from idat_tune.data.own import SPLIT_NAMES, SPLITS_BY_NAME
from idat_tune.data.sources import Choices, Item, Source, check_label, check_sizes, key
from idat_tune.data.tables import Rows
from idat_tune.errors import BadInput
from idat_tune.tasks import Task

_SPLIT_IN_NAME = re.compile(rf"(?:^|[-_])({'|'.join(SPLIT_NAMES)})(?:-\d+-of-\d+.*)?$")
_IMAGES = ("image", "img", "jpg", "png", "webp")


def is_huggingface(path: Path) -> bool:
    """Whether a folder has Arrow or Parquet files such as the library writes."""
    return next(_files(path), None) is not None


def find(path: Path, task: Task, any_size: bool) -> Source:
    """A benchmark's task, by the official slices.

    The rows must stand in the order of TFDS: the counts of slices and splits are checked, the order cannot be.

    Raises:
        BadInput: a split, column or row is missing; labels that cannot be.
    """
    splits, _ = _splits(path)
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
            label = check_label(official.label(task.name, row, rows.where(i)), task.classes, rows.where(i))
            yield Item(rows.where(i), label, partial(_image, task.name, rows, i, image))

    asked = key("huggingface", task.name, str(path), {name: len(rows) for name, rows in splits.items()}, any_size)
    return Source(task, "huggingface", str(path), asked, sizes, items, stand_in, (_ORDER,))


_ORDER = "rows were taken by their place, as TFDS orders them; whether this copy does cannot be seen from it"


def own_task(path: Path, name: str, choices: Choices) -> Source:
    """A task of the user's own, with the splits that its files say or, of one file or split, that a column says.

    Raises:
        BadInput: columns, images or labels that cannot be used.
    """
    if choices.group_pattern:
        raise BadInput("--group-pattern is for folders; of a data set, --group-column names the column of groups")
    splits, others = _splits(path)
    by_files = len(splits) > 1
    parts: list[Listed] = []
    notes: list[str] = []
    for split, table in splits.items():
        asked = replace(choices, split_column=NO_SPLITS) if by_files else choices
        found = columns.find(table, asked, str(table.files[0]))
        parts.append(Listed(table, found, choices, table.files[0].parent, SPLITS_BY_NAME[split] if by_files else None))
        notes += [*found.notes, *parts[-1].notes]
        if by_files and (unused := columns.split_columns(table.columns)):
            notes.append(f"the column '{unused[0]}' was not used, as the files are splits already")
        if not by_files and not found.split:
            notes.append("there is one split only, so its rows were divided into train, val and test")
    if by_files and choices.split_column not in (None, NO_SPLITS):
        raise BadInput(f"{path} has its splits as files: {', '.join(splits)}; leave out --split-column")
    names = next((part.class_names for part in parts if part.class_names), ())
    rows = [row for part in parts for row in part.rows]
    left_out = [f"{file}: neither train, validation nor test by its name" for file in others]
    left_out += [sentence for part in parts for sentence in part.left_out]
    return own.source("huggingface", path, name, rows, names, choices, tuple(dict.fromkeys(notes)), tuple(left_out))


def _image(task: str, rows: Rows, i: int, column: str) -> bytes:
    return official.image(task, rows.image(i, column))


def _column(rows: Rows, known: tuple[str, ...]) -> str:
    for name in known:
        if name in rows.columns:
            return name
    raise BadInput(f"{rows.files[0]} has no column {known[0]}; its columns: {', '.join(rows.columns)}")


def _splits(path: Path) -> tuple[dict[str, Rows], list[Path]]:
    """The rows of each split under its TFDS name (train, validation, test), and the files of other splits.

    Where no file names a split, all are train.
    """
    found: dict[str, dict[Path, list[Path]]] = {}
    files = {file: _split_of(file, path) for file in sorted(_files(path))}
    others = [file for file, split in files.items() if split is None] if any(files.values()) else []
    for file, name in files.items():
        if file not in others:
            split = own.OFFICIAL_NAME[name or "train"]
            found.setdefault(split, {}).setdefault(file.parent, []).append(file)
    if not found:
        raise BadInput(f"{path} has no Arrow or Parquet files, such as a Hugging Face data set has")
    for split, folders in found.items():
        if len(folders) > 1:
            raise BadInput(f"{path} has the split {split} more than once: {' and '.join(map(str, folders))}; name one")
    return {split: Rows(next(iter(folders.values()))) for split, folders in found.items()}, others


def _split_of(file: Path, within: Path) -> str | None:
    in_name = _SPLIT_IN_NAME.search(file.stem.lower())
    folders = reversed((within.name, *file.relative_to(within).parts[:-1]))
    names = [in_name.group(1)] if in_name else [folder.lower() for folder in folders]
    return next((SPLITS_BY_NAME[name] for name in names if name in SPLITS_BY_NAME), None)


def _files(path: Path) -> Iterator[Path]:
    for file in path.rglob("*"):
        known = file.suffix.lower() in (".arrow", ".parquet") and not file.name.startswith(("cache-", "tmp"))
        if known and not any(map(trees.is_system, file.relative_to(path).parts)):
            yield file
