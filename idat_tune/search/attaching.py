"""A search that another process drives, followed as if it were one's own."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from idat_tune import tracking
from idat_tune.errors import IdatError, Interrupted
from idat_tune.journal import Journal, TrialRecord
from idat_tune.journal.state import BROKE, INTERRUPTED
from idat_tune.search import plan_search
from idat_tune.search.budget import Budget
from idat_tune.search.callback import Callback, Callbacks
from idat_tune.search.config import FILE, SearchConfig, read
from idat_tune.search.holding import holder
from idat_tune.search.manifest import JOURNAL
from idat_tune.search.plan import Plan
from idat_tune.search.stages import students, winner

EVERY = 0.5  # seconds between two looks
PATIENCE = 60.0  # seconds that a search may take to its first lines


def plan_of(folder: Path) -> Plan:
    """The plan of a search that was begun in a folder.

    Raises:
        BadInput: its search file cannot be read, or its images are not here.
    """
    place = {"name": folder.name, "out": str(folder.parent)}
    return plan_search(SearchConfig.from_flat({**read(folder / FILE), **place}))


def awaited(folder: Path) -> None:
    """Wait until a search that has just been begun has written what it is."""
    deadline = time.monotonic() + PATIENCE
    while not (folder / FILE).exists() and holder(folder) and time.monotonic() < deadline:
        time.sleep(EVERY)


class Followed:
    """What a journal that grows says, event by event; trials show once they have ended."""

    def __init__(self, plan: Plan, callback: Callback):
        self.plan = plan
        self.callback = callback
        self.journal = Journal.followed(plan.folder / JOURNAL)
        self.journal.follow()
        self.budget = Budget(plan, self.journal, self.journal.state.gpus_per_trial)
        self._known = {record.id: record.ended for record in self.journal.records}
        self._said = self._standing()
        callback.on_search_start(plan, self.journal.state.at_once, self.journal.records, self.budget)

    def look(self) -> None:
        """Tell of what was added since the last look."""
        self.journal.follow()
        state = self.journal.state
        self.budget.seconds, self.budget.gpu_seconds = state.seconds, state.gpu_seconds
        for record in self.journal.records:
            if self._known.get(record.id) != record.ended:
                self._known[record.id] = record.ended
                self.callback.on_trial_end(record)
        before, self._said = self._said, self._standing()
        ended, chosen, openings = self._said
        if ended and not before[0]:
            self.callback.on_explore_end(ended)
        if chosen and chosen != before[1]:
            self.callback.on_winner(self._winner())
        if openings > before[2]:
            self.callback.on_test_open(len(students(self.plan, self.journal)), openings)

    def _standing(self) -> tuple[str | None, str | None, int]:
        state = self.journal.state
        return state.ended_by, state.winner, len(state.openings)

    def _winner(self) -> TrialRecord:
        found = winner(self.plan, self.journal)
        assert found is not None  # the journal has it before it says so
        return found


def attach(plan: Plan, callbacks: Iterable[Callback], every: float = EVERY) -> dict[str, Any]:
    """Follow a search that another process drives, until it ends.

    Returns:
        What `search` returns.

    Raises:
        Interrupted: the search was told to stop; what was finished is kept.
        IdatError: it failed, or what drove it died.
    """
    callback = Callbacks(callbacks)
    deadline = time.monotonic() + PATIENCE
    while not (plan.folder / JOURNAL).exists():
        if holder(plan.folder) is None or time.monotonic() > deadline:
            raise IdatError(f"search '{plan.name}' ended before it had begun")
        time.sleep(every)
    callback.on_search_open(plan)
    followed = Followed(plan, callback)
    while holder(plan.folder):
        followed.look()
        time.sleep(every)
    followed.look()
    state, name = followed.journal.state, plan.name
    if state.end is None:
        raise IdatError(f"what drove search '{name}' died; what was finished is kept")
    if state.end.kind == INTERRUPTED:
        raise Interrupted(f"search '{name}' was told to stop; what was finished is kept")
    if state.end.kind == BROKE and state.end.about["result"] is None:
        raise IdatError(f"search '{name}' failed: {state.end.about['reason']}")
    finished = state.end.kind != BROKE
    from idat_tune.search import finish  # with torch, for which nobody should wait who wants to see something

    found = finish.placed(state.end.about["result"], plan, tracking.uri(plan.out), finished)
    callback.on_search_end(found)
    return found
