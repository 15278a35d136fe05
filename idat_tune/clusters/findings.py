"""What is found about a cluster file: how bad, where, and the way out."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from idat_tune.errors import shown

ERROR, WARNING, NOTE = "error", "warning", "note"  # does not work, or opens a door; costs or exposes; to know


@dataclass(frozen=True)
class Finding:
    """Something about the file, and the way out."""

    severity: str
    where: str  # dotted path in the file, or who was asked
    sentence: str


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping as it is, an empty one for whatever else stands in its place."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """Likewise for a list."""
    return value if isinstance(value, list) else []


def taken_out(where: str, given: Any, known: Collection[str]) -> Iterator[Finding]:
    """Keys of a mapping that nothing reads, each with the nearest known one; they are taken out of it."""
    for key in [key for key in mapping(given) if key not in known]:
        del given[key]
        near = get_close_matches(str(key), known, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        place = f"{where}.{shown(key)}".lstrip(".")
        yield Finding(ERROR, place, f"nothing reads it; {meant}known: {', '.join(sorted(known))}")
