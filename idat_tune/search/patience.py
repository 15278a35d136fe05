"""Workers that make no progress: how long a trial may be silent, from how long others took, and who is ended for it."""

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune

from idat_tune.errors import BadInput
from idat_tune.journal import TEST, Journal
from idat_tune.search.live import Live
from idat_tune.search.searcher import StagedSearcher
from idat_tune.search.stages import students
from idat_tune.worker.pool import Pool

TIMES = 20.0  # the median: the slowest config of a space is no suspect
LEAST = 600.0  # seconds to any result
FIRST = 3600.0  # seconds to a first result while few are known: a download, a compiler, a slow epoch
FEW = 3
SETTING = "IDAT_TUNE_STALLED_AFTER"  # seconds, in the place of all this
RUNNING = "RUNNING"  # status of Tune's
EVERY = 1.0  # seconds between two looks
LONGEST = 5.0  # seconds that count between two: where the driver itself was held, results may wait for it


def setting() -> float | None:
    """What the user says of it.

    Raises:
        BadInput: it is no number of seconds.
    """
    said = os.environ.get(SETTING, "").strip()
    try:
        seconds = float(said or "inf")
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise BadInput(f"{SETTING}={said} is no number of seconds, after which a silent trial is taken for hung")
    return seconds if said else None


class Patience:
    """How long a trial may take to its next result."""

    def __init__(self, journal: Journal):
        self.journal = journal
        self.setting = setting()

    def limit(self, live: Live, students: float = 0.0) -> float:
        """Seconds from its last result. `students` are those of a test, each an epoch's worth of images."""
        if self.setting:
            return self.setting
        if live.waits:
            return max(LEAST, TIMES * statistics.median(live.waits[1:] or live.waits))
        records = [record for record in self.journal.records if record.epochs]
        firsts = [record.set_up_seconds + record.epochs[0].seconds for record in records]
        if len(firsts) < FEW or live.job.stage == TEST:
            return max(FIRST, TIMES * students * statistics.median(firsts or [FIRST / TIMES]))
        return max(LEAST, TIMES * statistics.median(firsts))


class Watch(tune.Callback):
    """Looks at the running trials, about every second, and ends the worker of one that is silent for too long."""

    def __init__(self, searcher: StagedSearcher, pool: Pool, clock: Callable[[], float] = time.monotonic):
        self.searcher = searcher
        self.pool = pool
        self.patience = Patience(searcher.journal)
        self.clock = clock
        self.looked = clock()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune calls it ten times a second."""
        passed = self.clock() - self.looked
        if passed < EVERY:
            return
        self.looked += passed
        self.searcher.look()
        there = defaultdict(list)
        for trial in trials:
            live = self.searcher.live.get(trial.trial_id)
            if live and live.place and trial.status == RUNNING:  # it may have ended, or wait for its seat
                live.silent += min(passed, LONGEST)
                there[live.place.worker].append(live)
        for worker, together in there.items():
            # Who trains with others waits for the slowest of them.
            limit = max(self.patience.limit(live, self._students(live)) for live in together)
            self._end(worker, [live for live in together if live.silent > limit])

    def _students(self, live: Live) -> float:
        if live.job.stage != TEST:
            return 0.0
        plan = self.searcher.plan
        return len(students(plan, self.searcher.journal)) * plan.task.test / plan.task.train

    def _end(self, worker: str, hung: Sequence[Live]) -> None:
        """Those that were there hear of it, and the searcher from them."""
        for live in hung:
            self.searcher.stalled(live)
            live.silent = 0.0
        if hung:
            self.pool.end(worker)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing goes into the state that Tune pickles for a restore of its own, which is never used."""
        return {}
