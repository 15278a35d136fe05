"""What labels say: the text of a class's name, which class is which, and names that are hard to tell apart."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from idat_tune import errors
from idat_tune.data.files import as_utf8
from idat_tune.errors import BadInput

_MISSING = ("", "nan", "<na>", "nat", "null", "na", "n/a", "#n/a")  # as tables write that there is no value
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")  # control characters, line breaks among them
_LONGEST = 120  # characters of a cell that messages show
_WHOLE_FLOAT = re.compile(r"([+-]?\d+)\.0+")  # pandas makes 1.0 of 1 where a column lacks some values


@dataclass(frozen=True)
class Classes:
    """The classes that occur, and which of them each image is of."""

    labels: list[int]  # from 0
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def text(value: Any, where: str) -> str:
    """A label of a table as the name of its class: numbers by their digits, text as it stands, without outer spaces.

    Raises:
        BadInput: there is none (empty, null, NaN, however it is written), or it is no single value; names `where`.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]  # as tables with room for several labels have it
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, list | tuple | dict):
        raise BadInput(f"{where}: the label is {quoted(value)}; a picture has one label here, a word or a number")
    if is_missing(value):
        written = f" ({quoted(value)} stands for a missing value in tables)" if str(value or "").strip() else ""
        raise BadInput(f"{where}: no label{written}; give it one, or leave the row out")
    return str(value).strip()


def named(value: Any, names: Sequence[str], where: str) -> str:
    """The name of the class of that number, where labels are numbers of names.

    Raises:
        BadInput: there is no label, or no name of that number; names `where`.
    """
    number = text(value, where)
    if isinstance(value, str) and number in names:
        return number
    if number == "-1":
        raise BadInput(f"{where}: no label (-1); leave out what has none")
    if not number.isdecimal() or int(number) >= len(names):
        raise BadInput(f"{where}: label {quoted(number)} is not in 0..{len(names) - 1}")
    return names[int(number)]


def is_missing(value: Any) -> bool:
    """Whether a cell of a table says that there is no value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and _visible(value).lower() in _MISSING


def classes(given: Sequence[str], splits: Sequence[str | None], known: Sequence[str], where: str) -> Classes:
    """Number the classes, each written in one way; numbers stand in their order, then words in theirs.

    Args:
        given: the label of each image.
        splits: of each image, None where that is not said.
        known: names in their order, of which only those that occur become classes.
        where: what has the labels, for messages.

    Raises:
        BadInput: the labels tell nothing apart, or a class is written differently in different splits.
    """
    names, notes = _texts(given)
    present = set(names)
    order = {name: i for i, name in enumerate(tidy(name) for name in known)}
    found = sorted(present, key=lambda name: (order.get(name, len(order)), *_in_order(name)))
    if len(found) < 2:
        raise BadInput(f"{where} has one class only, {found[0]}; a task needs two")
    if len(found) == len(names) > 2:
        raise BadInput(
            f"each of the {len(names):,} pictures of {where} has a label of its own, such as {quoted(names[0])}; "
            "is that what tells the classes? --label-column names another column of a list"
        )
    images = Counter(names)
    if 2 * sum(images[name] == 1 for name in found) > len(found):
        notes.append(f"most of the {len(found):,} classes have one picture only; are these the labels that are meant?")
    number_of = {name: i for i, name in enumerate(found)}
    unused = [name for name in order if name not in present]
    return Classes(
        [number_of[name] for name in names],
        tuple(found),
        (*notes, *_look_alikes(names, splits, found)),
        (f"{_some(unused)}: classes without a picture",) if unused else (),
    )


def tidy(name: str) -> str:
    """The name of a class as it is kept: composed Unicode, on one line, without outer spaces, printable."""
    return _BREAKS.sub(" ", unicodedata.normalize("NFC", as_utf8(name))).strip()


def quoted(cell: Any) -> str:
    """A cell of a table in quotes, short and on one line, for messages."""
    return f"'{errors.shown(_BREAKS.sub(' ', as_utf8(str(cell))), _LONGEST)}'"


def _texts(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each label tidied, and what that changed."""
    notes: list[str] = []
    written: dict[str, set[str]] = defaultdict(set)
    for name in set(given):
        written[tidy(name)].add(name)
    for name, forms in sorted(written.items()):
        if not _visible(name):
            raise BadInput(f"a class is called {min(forms)!a}, which nobody can read; give it a name")
        if len(forms) > 1:
            # ascii() shows what differs, such as a combining accent.
            notes.append(f"'{name}' is written as {' and '.join(map(ascii, sorted(forms)))}, taken as one class")
    tidied = {form: name for name, forms in written.items() for form in forms}
    if all(_WHOLE_FLOAT.fullmatch(name) for name in written):
        tidied = {form: _WHOLE_FLOAT.sub(r"\1", name) for form, name in tidied.items()}
        example = max(written)
        notes.append(f"labels are whole numbers, so '{example}' is taken as '{tidied[example]}'")
    return [tidied[name] for name in given], notes


def _look_alikes(names: Sequence[str], splits: Sequence[str | None], found: Sequence[str]) -> list[str]:
    """Sentences on classes that may be meant as one; refused where a split has one of them and train another."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in found:
        alike[_likeness(name)].append(name)
    in_splits: dict[str, set[str | None]] = defaultdict(set)
    for name, split in zip(names, splits, strict=True):
        in_splits[name].add(split)
    notes = []
    for group in alike.values():
        if len(group) < 2:
            continue
        for name in group:
            other = next((one for one in group if in_splits[one].isdisjoint(in_splits[name])), None)
            if other is not None:
                one, two = (" and ".join(sorted(map(str, in_splits[form]))) for form in (name, other))
                raise BadInput(
                    f"{one} has the class '{name}' and {two} '{other}', which differ only in {_differ(name, other)}; "
                    "write the class in one way"
                )
        listed = ", ".join(f"'{name}'" for name in group)
        notes.append(f"{listed} are taken as {len(group)} classes, though they differ only in {_differ(*group[:2])}")
    if "-1" in found and len(found) > 2:
        notes.append("'-1' is taken as a class like any other; if it means that there is no label, leave its rows out")
    return notes


def _likeness(name: str) -> str:
    if _NUMBER.fullmatch(name):
        return repr(float(name)) if len(name) < 16 else name.lstrip("0")
    return re.sub(r"[\s_]+", " ", _visible(unicodedata.normalize("NFKC", name)).casefold())


def _visible(name: str) -> str:
    """A name without control characters, zero width spaces and their kin, and outer spaces."""
    return "".join(letter for letter in name if unicodedata.category(letter) not in ("Cc", "Cf")).strip()


def _differ(one: str, two: str) -> str:
    if _NUMBER.fullmatch(one):
        return "how the number is written"
    if one.casefold() == two.casefold():
        return "upper and lower case"
    if re.sub(r"[\s_]+", " ", one) == re.sub(r"[\s_]+", " ", two):
        return "spaces"
    return "letters that look alike" if one.isascii() == two.isascii() else "the form of letters"


def _in_order(name: str) -> tuple[int, float, int, str]:
    return (0, float(name), len(name), name) if _NUMBER.fullmatch(name) else (1, 0.0, 0, name)


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
