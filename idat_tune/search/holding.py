"""Who holds a search folder: the process that drives the search, on whatever machine."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from idat_tune.errors import BadInput
from idat_tune.search.machine import began, lives

LOCK = ".lock"  # in the search folder
PROBES = 5  # tries to hold a folder: somebody may just be looking whether it is held
PAUSE = 0.05  # seconds between two


@dataclass(frozen=True)
class Holder:
    """A process that drives a search."""

    host: str
    pid: int
    began: str  # as the kernel counts, so that no other process with the same number is taken for it

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == platform.node()

    def lives(self) -> bool:
        """Whether it still runs, if it is on this machine."""
        return lives(self.pid, self.began)

    def __str__(self) -> str:
        return f"{self.pid}@{self.host}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a search folder and hold it: no second search may use it at the same time.

    Raises:
        BadInput: the folder cannot be written, or a running search holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+")
    except OSError as failure:
        raise BadInput(f"--out {folder.parent} cannot be written: {failure.strerror}; choose another folder") from None
    with lock:
        if not _take(lock.fileno()):
            raise BadInput(
                f"search '{folder.name}' is running already; `idat-tune search --name {folder.name}` shows it, or give "
                "another --name"
            )
        os.ftruncate(lock.fileno(), 0)
        lock.write(json.dumps(asdict(Holder(platform.node(), os.getpid(), began(os.getpid())))))
        lock.flush()
        yield
        os.ftruncate(lock.fileno(), 0)


def _take(lock: int) -> bool:
    for _ in range(PROBES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(PAUSE)
        else:
            return True
    return False


def holder(folder: Path) -> Holder | None:
    """Who holds a search folder now; None if nobody does, or nobody can."""
    try:
        with (folder / LOCK).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _named(lock.read())
    except OSError:  # there is none
        return None
    return None


def _named(text: str) -> Holder:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):  # it is just about to be written
        return Holder("this machine or another", 0, "")
