"""A task from folders of images, or an archive of them: one per class, maybe within train/, val/ and test/."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from idat_tune.data import archives, layouts, trees
from idat_tune.data.own import Row, source
from idat_tune.data.sources import Choices, Source
from idat_tune.data.trees import Folder
from idat_tune.errors import BadInput


def from_folder(path: Path, name: str, choices: Choices) -> Source:
    """A folder, zip or tar with a folder per class; or with train/, test/ and maybe val/ that have these in them.

    Raises:
        BadInput: no classes, no images, folders that can be read in two ways, a broken archive.
    """
    tree, left = archives.scan(path) if path.is_file() else trees.scan(path)
    try:
        found = layouts.find(tree, str(path), choices.layout, left)
    except BadInput as failure:
        raise BadInput(f"{failure}{_table(tree, path)}") from None
    group_of = _groups(choices.group_pattern)
    rows = [
        Row(image.shown, part.label, image.read, part.split, image.shown, image.size, group_of(image.path))
        for part in found.parts
        for image in part.folder.all_images()
    ]
    if choices.group_pattern is not None:
        found.notes += _said_of_groups(rows, choices.group_pattern)
    return source("images", path, name, rows, (), choices, tuple(found.notes), left.phrases())


def _table(tree: Folder, path: Path) -> str:
    """What to say of a table beside the images, which may have the labels that are missed."""
    if not any(folder.others[kind] for folder in tree.walk() for kind in (".csv", ".tsv", ".jsonl", ".parquet")):
        return ""
    unpacked = " once the archive is unpacked" if path.is_file() else ""
    return f"; there is a table in it, which is imported by its own name{unpacked}"


def _groups(pattern: str | None) -> Callable[[str], str | None]:
    """What tells a file's group from its path within the source; none where the pattern does not match."""
    if pattern is None:
        return lambda path: None
    try:
        compiled = re.compile(pattern)
    except re.error as failure:
        raise BadInput(f"--group-pattern '{pattern}' is no regular expression: {failure}") from None
    if not compiled.groups:
        raise BadInput(f"--group-pattern '{pattern}' has no group; put what names a patient or burst in ( )")

    def group_of(path: str) -> str | None:
        match = compiled.search(path)
        return (match.group(1) or None) if match else None

    return group_of


def _said_of_groups(rows: list[Row], pattern: str) -> list[str]:
    """What to say of the files that the pattern does not match; raises BadInput where it matches none."""
    alone = [row for row in rows if row.group is None]
    if len(alone) == len(rows):
        raise BadInput(f"--group-pattern '{pattern}' matches none of the {len(rows):,} images, {rows[0].name} for one")
    if not alone:
        return []
    return [f"{len(alone):,} images are a group of their own, as --group-pattern does not match them: {alone[0].name}"]
