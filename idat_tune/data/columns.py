"""Which column of a table has the pictures, the labels, the splits and the groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from idat_tune.data.labels import is_missing
from idat_tune.data.sources import Choices
from idat_tune.errors import BadInput, unknown

# As _plain() spells them.
_IMAGES = (
    "path", "image", "images", "file", "filename", "filepath", "imagepath", "imagefile", "imagefilename", "imagename",
    "img", "imgpath", "imgfile", "imgname", "picture", "photo", "jpg", "png", "webp",
)  # fmt: skip
_IDS = ("imageid", "imgid")  # taken where there is no better one
_LABELS = (
    "label", "labels", "class", "classes", "classname", "classlabel", "classid", "category", "categoryname",
    "categoryid", "target", "targets", "labelname", "labelid", "finelabel", "coarselabel", "cls",
)  # fmt: skip
_SPLITS = ("split", "splits", "set", "subset", "dataset", "datasplit", "partition", "fold", "phase", "usage")
_GROUPS = (
    "group", "groupid", "patient", "patientid", "subject", "subjectid", "lesionid", "slideid", "caseid", "burst",
    "burstid", "videoid", "sequenceid", "sceneid",
)  # fmt: skip
_UNNAMED = re.compile(r"(unnamed: \d+|__index_level_\d+__|)", re.IGNORECASE)  # indexes that pandas wrote
NO_SPLITS = "none"  # what --split-column takes for: there are none
_ONE_HOT = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}


class Table(Protocol):
    """What is to be known of a table."""

    @property
    def columns(self) -> list[str]:
        """Their names."""

    def column(self, name: str) -> list[Any]:
        """The cells of one."""

    def where(self, row: int) -> str:
        """File and line, for messages."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are."""

    image: str
    label: str | None  # none where each class has a column
    one_hot: tuple[str, ...]  # those columns; one cell of a row is 1, the others are 0
    split: str | None
    group: str | None
    notes: tuple[str, ...]

    def labels(self, table: Table) -> list[Any]:
        """The label of each row, as it stands there."""
        if self.label is not None:
            return table.column(self.label)
        cells = [[_bit(cell) for cell in table.column(name)] for name in self.one_hot]
        found = []
        for i, row in enumerate(zip(*cells, strict=True)):
            if sum(map(bool, row)) != 1:
                raise BadInput(
                    f"{table.where(i)}: {sum(map(bool, row))} of the columns {', '.join(self.one_hot)} are 1; "
                    "a picture has one label here"
                )
            found.append(self.one_hot[row.index(1)])
        return found


def find(table: Table, choices: Choices, where: str) -> Columns:
    """Tell the columns by the user's choices, else by the names that people give them.

    Raises:
        BadInput: a chosen column is not there, none or several go by a known name; says how to choose.
    """
    names = table.columns
    if twice := [name for name in names if names.count(name) > 1 and not _UNNAMED.fullmatch(name)]:
        raise BadInput(f"{where} has several columns called '{twice[0]}'; rename all but one")
    image = _one(names, choices.path_column, _IMAGES, "--path-column", where)
    image = image or _one(names, None, _IDS, "--path-column", where)
    label = _one(names, choices.label_column, _LABELS, "--label-column", where)
    group = _one(names, choices.group_column, (), "--group-column", where)
    split = None
    if choices.split_column != NO_SPLITS or NO_SPLITS in names:
        split = _one(names, choices.split_column, _SPLITS, "--split-column", where)
    one_hot: tuple[str, ...] = ()
    if image and not label:
        one_hot = _one_hot(table, [name for name in names if name not in (image, split, group)])
    if not image or not (label or one_hot):
        raise BadInput(
            f"{where} needs the columns path and label; it has: {', '.join(names) or 'none'}; if they are called "
            "otherwise, --path-column and --label-column name them"
        )
    roles = [name for name in (image, label, split, group) if name]
    if len(set(roles)) < len(roles):
        raise BadInput(f"{where}: the column '{max(roles, key=roles.count)}' cannot be two things at once")
    notes = [f"each of the columns {', '.join(one_hot)} is a class"] if one_hot else []
    related = [name for name in names if _plain(name) in _GROUPS and name not in roles]
    if related and not choices.group_column:
        notes.append(
            f"if pictures of one {related[0]} belong together, --group-column '{related[0]}' keeps them in one split"
        )
    return Columns(image, label, one_hot, split, group, tuple(notes))


def names_paths(name: str) -> bool:
    """Whether a column of that name is known to have paths or images."""
    return _plain(name) in (*_IMAGES, *_IDS)


def split_columns(names: Sequence[str]) -> list[str]:
    """Those columns that may say what split a row is of."""
    return [name for name in names if _plain(name) in _SPLITS]


def _one(names: Sequence[str], chosen: str | None, known: Sequence[str], option: str, where: str) -> str | None:
    if chosen is not None:
        if chosen not in names:
            raise BadInput(f"{where}: {unknown('column', chosen, names)}")
        return chosen
    found = [name for name in names if _plain(name) in known]
    if len(found) > 1:
        listed = ", ".join(f"'{name}'" for name in found)
        raise BadInput(f"{where} has the columns {listed}, any of which may be meant; choose one with {option}")
    return found[0] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", name.lower())


def _one_hot(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """Those columns if they have nothing but 0 and 1."""
    named = tuple(name for name in names if not _UNNAMED.fullmatch(name))
    if len(named) < 2:
        return ()
    cells = (cell for name in named for cell in table.column(name))
    return named if all(_bit(cell) is not None for cell in cells) else ()


def _bit(cell: Any) -> int | None:
    return None if is_missing(cell) else _ONE_HOT.get(str(cell).strip().lower())
