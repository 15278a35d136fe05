"""The commands; no logic, and heavy imports only inside a command."""

import errno
import os
import sys
from contextlib import suppress

from idat_tune.errors import IdatError, shown
from idat_tune.interrupts import Interrupts, interruptible

UNUSABLE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ELOOP, errno.EROFS)  # paths of a user
MOST_SAID = 2000  # characters of an error; the longest lists of what is known take some hundreds
LONGEST = 120  # characters of a path in a sentence
NOT_BEGUN = "error: interrupted before anything was begun; the same command begins it"


def main() -> None:
    """Run a command: errors of ours become one sentence on stderr and their exit code."""
    _open_streams()
    # Names that this terminal cannot show (of files whose bytes are no text, say) are shown escaped, not refused.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    with interruptible() as interrupts:
        code = _flushed(_code(interrupts))
        if interrupts.asked:
            os._exit(code)  # all is closed; what Ray does at the end of a process may wait for its own, which are gone
    sys.exit(code)


def _code(interrupts: Interrupts) -> int:
    """The exit code of the command, which has been run."""
    try:
        from idat_tune.cli.commands import app  # here, as a signal may come while it is imported

        app()
    except SystemExit as left:
        if interrupts.asked:  # which typer makes an end without a word of, while it reads the command line
            _say(NOT_BEGUN)
            return 130
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except IdatError as failure:
        _say(f"error: {shown(failure, MOST_SAID)}")
        return failure.exit_code
    except KeyboardInterrupt:
        _say(NOT_BEGUN)
        return 130
    except OSError as failure:
        if failure.filename is None and failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            return _unwritten(failure)
        if failure.filename is None or failure.errno not in UNUSABLE:
            raise
        _say(f"error: {_short(os.fsdecode(failure.filename))} cannot be used: {failure.strerror}")
        return 2
    except Exception:
        if not interrupts.asked:  # else it is what a library made of the interrupt, in the middle of its import
            raise
        _say(NOT_BEGUN)
        return 130
    return 0


def _short(path: str) -> str:
    return path if len(path) <= LONGEST else f"{path[:LONGEST]}..."


def _open_streams() -> None:
    """Have a file for each standard stream that was closed: else the next file to be opened would be taken for it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _flushed(code: int) -> int:
    """Write what is left for stdout; the exit code then."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
        return code or 1
    except OSError as failure:
        return _unwritten(failure)
    return code


def _unwritten(failure: OSError) -> int:
    _give_up_stdout()
    _say(f"error: stdout takes nothing more: {failure.strerror}")
    return 1


def _give_up_stdout() -> None:
    """Let what could not be written go, which Python would try once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(text, file=sys.stderr, flush=True)  # noqa: T201
