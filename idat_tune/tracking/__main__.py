"""The process that sends: a search as the first line of stdin, then what happens; what to know of it on stdout."""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from idat_tune.journal import Journal
from idat_tune.tracking.runs import Search
from idat_tune.tracking.sender import Sender, alone, serve
from idat_tune.tracking.store import PATIENCE

ALIVE = 0.2  # seconds between two signs of life


def _read(lines: Iterable[str], heard: "queue.SimpleQueue[str | None]") -> None:
    for line in lines:
        heard.put(line)
    heard.put(None)


def main() -> None:
    """Send until stdin ends."""
    said: IO[str] = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # MLflow prints
    os.nice(5)  # training goes first
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    told = 0.0

    def tell(**about: Any) -> None:
        with suppress(BrokenPipeError):  # of a driver that was killed; what it left is sent all the same
            said.write(json.dumps(about) + "\n")

    def alive() -> None:
        nonlocal told
        if time.monotonic() - told > ALIVE:
            told = time.monotonic()
            tell()

    about = json.loads(sys.stdin.readline())
    heard: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, heard), daemon=True).start()
    sender = Sender(Search(**about["search"]), Journal.followed(Path(about["journal"])), about["known"], alive)
    import mlflow  # noqa: F401 - before anybody counts seconds

    with alone(sender.search):
        serve(sender, heard, tell)
    os._exit(0)  # MLflow's own threads may wait for a server that is away


if __name__ == "__main__":
    main()
