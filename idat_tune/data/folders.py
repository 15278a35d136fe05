"""A task from folders of images: one per class, maybe within train/, val/ and test/."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from idat_tune.data.own import SPLITS_BY_NAME, Row, source
from idat_tune.data.pixels import SUFFIXES
from idat_tune.data.sources import Choices, Source, read_file
from idat_tune.errors import BadInput


def from_folder(path: Path, name: str, choices: Choices) -> Source:
    """A folder per class; or train/, test/ and maybe val/ with a folder per class in each.

    Raises:
        BadInput: no classes, no images, or splits without train or test.
    """
    folders = {entry.name: entry for entry in _visible(path) if entry.is_dir()}
    splits = {SPLITS_BY_NAME[found.lower()]: found for found in folders if found.lower() in SPLITS_BY_NAME}
    rows: list[Row] = []
    passed = 0
    within: list[tuple[str | None, Path]] = [(split, folders[name]) for split, name in sorted(splits.items())]
    for split, folder in within or [(None, path)]:
        for label in sorted(entry for entry in _visible(folder) if entry.is_dir()):
            for file in sorted(_below(label)):
                if file.suffix.lower() in SUFFIXES:
                    read = partial(read_file, file)
                    rows.append(Row(str(file), label.name, read, split, str(file), file.stat().st_size))
                else:
                    passed += 1
    if not rows:
        raise BadInput(f"no images in {path}; expected a folder for each class, or train/, val/ and test/ with those")
    notes = (f"{passed} files that are no images by their names were passed over",) if passed else ()
    return source("images", path, name, rows, (), choices, notes)


def _visible(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if not entry.name.startswith((".", "__MACOSX"))]


def _below(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*") if file.is_file() and not file.name.startswith((".", "Thumbs.db")))
