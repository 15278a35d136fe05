"""Ctrl-C, SIGTERM and SIGHUP: one way out of whatever is going on."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO = 2.0  # seconds; a terminal that closes sends SIGHUP twice, and a process group's manager sends what it likes


class Interrupts:
    """What the signals do: raise KeyboardInterrupt, and remember it, as it may get lost in a destructor of Ray's.

    More of them right after the first are ignored, so that what was begun can be closed.
    """

    def __init__(self) -> None:
        self._heard: float | None = None
        self._handled: list[signal.Signals] = []

    @property
    def asked(self) -> bool:
        """Whether there was one."""
        return self._heard is not None

    def check(self) -> None:
        """Raise what got lost."""
        if self.asked:
            raise KeyboardInterrupt

    def _handle(self) -> None:
        for number in self._handled:
            signal.signal(number, self)

    def handle(self) -> dict[signal.Signals, Any]:
        """Handle all that are not ignored, as nohup and the background jobs of a shell have it; who did so before."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._handled = [number for number, handler in before.items() if handler != signal.SIG_IGN]
        self._handle()
        return {number: before[number] for number in self._handled}

    def renew(self) -> None:
        """Handle the signals again: Ray, when it starts and when it ends, puts others in the place of this."""
        if self is _current and threading.current_thread() is threading.main_thread():
            self._handle()

    def __call__(self, *_: Any) -> None:
        """Handle one."""
        now = time.monotonic()
        if self._heard is not None and now - self._heard < ECHO:
            return
        self._heard = now
        raise KeyboardInterrupt


_current: Interrupts | None = None


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """While inside, each of the signals raises KeyboardInterrupt in the main thread; elsewhere nothing changes.

    Inside of another one that one goes on.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield _current or Interrupts()
        return
    _current = Interrupts()
    before, tell = _current.handle(), sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else tell(lost)  # which is remembered
    try:
        yield _current
    finally:
        _current = None
        sys.unraisablehook = tell
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
