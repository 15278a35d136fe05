"""The driver's end of the sender: starts it, tells it what happens without ever waiting, and hears from it."""

import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from idat_tune.tracking.runs import Search

ROOM = 1 << 20  # bytes that may wait to be read; beyond, epochs of running trials are not told one by one
SILENCE = 1.5  # seconds without a sign of life at the end, after which a store behind a network is given up
PATIENCE = 60.0  # the same for a file of this machine, for the start of the process, and for all of it


class Link:
    """A sender that runs."""

    def __init__(self, search: Search, journal: Path, known: str, said: IO[bytes], local: bool):
        """Start it.

        Args:
            search: which one.
            journal: its file, which is there.
            known: id of the parent run, if it has one.
            said: file for whatever the process prints.
            local: whether the store is a file of this machine.
        """
        self.process = subprocess.Popen(
            [sys.executable, "-m", "idat_tune.tracking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # Ctrl-C is for the search, which then says so
        )
        assert self.process.stdin
        assert self.process.stdout
        self._to, self._from = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.alive = True
        self._rest = b""
        self._silence = PATIENCE  # until it is ready
        self._local = local
        with suppress(OSError, AttributeError):
            fcntl.fcntl(self._to, fcntl.F_SETPIPE_SZ, ROOM)
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self.tell({"search": asdict(search), "journal": str(journal), "known": known})

    def tell(self, message: Mapping[str, Any]) -> None:
        """Tell it something, or nothing where it does not keep up; never waits."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._to, json.dumps(message).encode() + b"\n")

    def heard(self) -> list[dict[str, Any]]:
        """What it has said since; never waits. Of a process that has ended by itself, that its store is away."""
        messages = self._taken()
        return messages if self.alive else [*messages, {"away": "the process that sends has ended"}]

    def _taken(self) -> list[dict[str, Any]]:
        try:
            come = os.read(self._from, ROOM)
        except BlockingIOError:
            return []
        self.alive = bool(come)
        *lines, self._rest = (self._rest + come).split(b"\n")
        messages = [json.loads(line) for line in lines]
        if any("ready" in message for message in messages):
            self._silence = PATIENCE if self._local else SILENCE
        return [message for message in messages if message]

    def close(self, most: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> list[dict[str, Any]]:
        """Let it send the rest, as long as it shows signs of life and `most` seconds at most; what it said."""
        assert self.process.stdin
        self.process.stdin.close()
        messages: list[dict[str, Any]] = []
        end = clock() + most
        try:
            while self.alive and (left := min(self._silence, end - clock())) > 0:
                if not select.select([self._from], [], [], left)[0]:
                    break
                messages += self._taken()
        finally:
            self.kill()
        return messages

    def kill(self) -> None:
        """End it as it is: whatever was being sent is found, or sent again."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]
