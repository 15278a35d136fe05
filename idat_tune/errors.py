"""Every error raised on purpose: what came, what is known, the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class IdatError(Exception):
    """A failure with a one-sentence message; a single argument, so that it crosses processes."""

    exit_code = 1


class BadInput(IdatError):
    """Something the user gave cannot be used; nothing was changed."""

    exit_code = 2


class Interrupted(IdatError):
    """Told to stop, by Ctrl-C or a signal; what was finished is kept, and the same call goes on."""

    exit_code = 130


class Diverged(IdatError):
    """Training produced a loss that is not finite; trying again cannot help."""


class DiskFull(IdatError):
    """Nothing more can be written; what was written before is kept."""


class OutOfMemory(IdatError):
    """A run needs more memory than its device has; what it held is free again."""


class Unfit(IdatError):
    """This machine cannot run a trial that others can: no fault of the trial's."""


class TrackingFailed(IdatError):
    """The tracking store cannot be reached or takes nothing; what it should hold is in the journal."""


def shown(value: object, most: int = 60) -> str:
    """A value of the user's as part of a sentence: on one line, no control characters, at most `most` characters."""
    try:
        text = str(value)[: most + 1]
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a very long number"
    plain = printable(text)
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def printable(text: str) -> str:
    """`text` on one line: bytes that are no text, line breaks, and what moves a terminal's cursor, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unknown(kind: str, name: object, known: Iterable[str]) -> BadInput:
    """The error for a name that is not in a closed list, with the nearest known one."""
    names = list(known)
    given = shown(name)
    alike = {_spelling(known_name): known_name for known_name in reversed(names)}
    near = get_close_matches(_spelling(given), alike, n=1, cutoff=0.5)
    hint = f"; did you mean '{alike[near[0]]}'?" if near else ";"
    return BadInput(f"unknown {kind} '{given}'{hint} known: {', '.join(names)}")


def _spelling(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
