"""Files that are whole or not there: locks, atomic replacement, full disks."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from idat_tune.errors import BadInput, IdatError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),  # it, or what is above, is no folder
)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` as a lock; other processes and threads that want it wait. It is let go when its holder dies."""
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = path.open("a+b")
    with held:
        _wait_for(held)
        yield


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when the block ends well, and else leaves nothing.

    Raises:
        IdatError: the disk is full.
        BadInput: the folder may not be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Says in one sentence what kept `path` from being written."""
    try:
        yield
    except OSError as failure:
        if failure.errno in _FULL:
            raise IdatError(
                f"the disk is full: {path} could not be written and nothing of it was left behind; "
                "make room, or choose another folder with IDAT_TUNE_DATA"
            ) from failure
        if failure.errno in _FORBIDDEN:
            raise BadInput(
                f"{path} may not be written ({failure.strerror}); choose another folder with IDAT_TUNE_DATA"
            ) from failure
        raise


def sweep(folder: Path) -> None:
    """Delete what writers that were killed left in a folder; only for who holds the lock over all that write there."""
    for left in folder.glob(".*.partial"):
        left.unlink(missing_ok=True)


def swap_in(new: Path, place: Path) -> None:
    """Move the folder `new` to `place`; what stood there is gone afterwards."""
    old = new.with_name(f"{new.name}.old")
    remove(old)
    if place.exists():
        place.rename(old)
    new.rename(place)
    remove(old)


def as_utf8(name: str) -> str:
    """The name of a file or folder as text: bytes in it that are not UTF-8 are written as \\xe9."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def remove(path: Path) -> None:
    """Delete a folder and all in it, if it is there."""
    shutil.rmtree(path, ignore_errors=True)


def _wait_for(held: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(held.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(held.fileno(), fcntl.LOCK_EX)
