"""A process of its own that sends what a search's journal holds, so that whoever writes the journal never waits."""

import fcntl
import json
import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from idat_tune.journal import EXPLORE, FINAL, TEST, Journal, TrialRecord
from idat_tune.metrics import EpochMetrics
from idat_tune.tracking.runs import RUNNING, Search, child, parent
from idat_tune.tracking.store import lay_out, plainly
from idat_tune.tracking.tracker import Tracker

PACE = 2.0  # seconds from one round to the next; running trials are seen to move at that pace
LONGEST = 30.0  # seconds between two attempts to reach a store that is away
LOCK = ".tracking.lock"  # in the search folder

log = logging.getLogger("mlflow.idat_tune")  # goes where MLflow's own go


class Sender:
    """Sends a journal, and the running trials that it hears of, round by round.

    After a failure nothing is taken for granted: the next round looks up what the store has.
    """

    def __init__(self, search: Search, journal: Journal, known: str = "", alive: Callable[[], None] = lambda: None):
        """`journal` is one that is `followed`; `known` is the id of the parent run, if it has one."""
        self.search = search
        self.journal = journal
        self.run = known
        self.alive = alive
        self.written = 0  # runs that were brought to their end
        self.running: dict[str, TrialRecord] = {}
        self._tracker: Tracker | None = None
        self._sent: dict[str, Any] = {}  # by trial: what of it was sent

    def hear(self, message: Mapping[str, Any]) -> None:
        """A trial has begun, or got through an epoch."""
        trial, about = message["trial"], message.get("begun")
        if about is not None and about["stage"] != TEST:  # which is no run of its own
            self.running[trial] = TrialRecord(trial, status=RUNNING, **{**about, "arms": tuple(about["arms"])})
        elif trial in self.running:
            before, epoch = self.running[trial], EpochMetrics.from_dict(message["epoch"])
            self.running[trial] = replace(
                before, epochs=(*before.epochs, epoch), set_up_seconds=message["set_up_seconds"]
            )

    def send(self, ended: bool = False) -> bool:
        """Bring the store up to what is known now; whether it has all of a search that has ended.

        Args:
            ended: whether nobody writes the journal any more; else it is not over before the journal says so.

        Raises:
            Exception: whatever MLflow or its database raise.
        """
        self.journal.follow()
        if self.journal.state.first is None:
            return False
        try:
            return self._send(ended or self.journal.state.end is not None)
        except BaseException:
            self._tracker, self._sent = None, {}
            raise

    def _send(self, ended: bool) -> bool:
        whole = parent(self.search, self.journal, {}, ended)
        if self._tracker is None:
            tracker = Tracker(self.search, self.alive)
            begun = parent(self.search, self.journal, {})
            self.run = tracker.open(begun, self.run)
            tracker.put_views(begun.start)
            self._tracker = tracker
        tracker, before = self._tracker, self._tracker.written
        if not tracker.has(whole):
            if not ended:
                tracker.put_parent(whole)
            openings = len(self.journal.of(TEST))
            trials = [record for record in self.journal.records if record.stage != TEST]
            for record in trials:
                self._send_trial(tracker, record, openings)
            for trial in list(self.running):
                self._send_running(tracker, trial, ended)
            if ended:
                for trial in set(tracker.children) - {record.id for record in trials}:
                    tracker.delete(trial)  # of which nothing came: if the search goes on, it begins again
                tracker.put_model(self.journal)
                tracker.put_parent(parent(self.search, self.journal, tracker.children, ended))
        self.written += tracker.written - before
        return ended

    def _send_trial(self, tracker: Tracker, record: TrialRecord, openings: int) -> None:
        frozen = self.journal.state.frozen
        known = (frozen and frozen.time, openings)
        later = {EXPLORE: known, FINAL: openings}.get(record.stage)  # what may be said of it once more
        mark = (record.started_ms, record.ended_ms, later)
        if self._sent.get(record.id) != mark:
            tracker.put(child(self.search, self.run, self.journal, record))
            self._sent[record.id] = mark
        running = self.running.get(record.id)
        if running and running.started_ms == record.started_ms:
            del self.running[record.id]

    def _send_running(self, tracker: Tracker, trial: str, ended: bool) -> None:
        record = self.running[trial]
        mark = (record.started_ms, len(record.epochs))
        if not ended and self._sent.get(trial) != mark:
            tracker.put(child(self.search, self.run, self.journal, record))
            self._sent[trial] = mark


@contextmanager
def alone(search: Search) -> Iterator[None]:
    """Wait until nobody else sends this search: that of a driver that was killed may be at its last round."""
    with (search.folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def send_all(search: Search, journal: Path, known: str = "") -> Sender:
    """Send all of a search that nobody runs; what was sent, and the id of its parent run.

    Raises:
        Exception: whatever MLflow or its database raise.
    """
    sender = Sender(search, Journal.followed(journal), known)
    with alone(search):
        lay_out(Path(search.out))
        sender.send(ended=True)
    return sender


def serve(sender: Sender, heard: "queue.SimpleQueue[str | None]", tell: Callable[..., None]) -> None:
    """Send until there is no more to hear, and once after that.

    Args:
        sender: of the search.
        heard: messages as lines of JSON, then None.
        tell: called with what the search should know: `ready`, `run`, `away`, `back`, `whole`.
    """
    pause, away, run, laid_out, ended = 0.0, False, sender.run, False, False
    while not ended:
        ended = listen(sender, heard, pause)
        try:
            if not laid_out:
                lay_out(Path(sender.search.out))
                laid_out = True
                tell(ready=True)
            whole = sender.send(ended)
        except Exception as failure:
            log.warning("tracking failed", exc_info=True)
            pause, away = min(max(2 * pause, 1.0), LONGEST), True
            tell(away=plainly(failure))
            continue
        if away:
            tell(back=True)
        if sender.run != run:
            tell(run=sender.run)
        pause, away, run = PACE, False, sender.run
        if whole:
            tell(whole=sender.run, written=sender.written)


def listen(sender: Sender, heard: "queue.SimpleQueue[str | None]", seconds: float) -> bool:
    """Let the sender hear what comes within some seconds; whether no more will come."""
    until = time.monotonic() + seconds
    while True:
        try:
            line = heard.get(timeout=max(until - time.monotonic(), 0.0))
        except queue.Empty:
            return False
        if line is None:
            return True
        try:
            sender.hear(json.loads(line))
        except (ValueError, TypeError, KeyError):  # cut short, where there was no room: the journal will have it
            continue
