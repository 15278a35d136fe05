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


class TrackingFailed(IdatError):
    """The tracking store cannot be reached or takes nothing; what it should hold is in the journal."""


def unknown(kind: str, name: object, known: Iterable[str]) -> BadInput:
    """The error for a name that is not in a closed list, with the nearest known one."""
    names = list(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ";"
    return BadInput(f"unknown {kind} '{name}'{hint} known: {', '.join(names)}")
