"""Where the trials of a search go: which worker takes the next one, and how many workers there should be."""

from collections.abc import Callable, Collection

from idat_tune.journal import Journal
from idat_tune.search.live import Live
from idat_tune.search.machines import gets_one, paces, seconds_of
from idat_tune.search.plan import Plan
from idat_tune.search.room import MOST_AT_ONCE
from idat_tune.search.stages import ahead
from idat_tune.worker.pool import Place, Pool


class Placing:
    """Gives trials to the workers of a pool, and asks it for as many as there is work for."""

    def __init__(self, plan: Plan, journal: Journal, pool: Pool, clock: Callable[[], float]):
        self.plan = plan
        self.journal = journal
        self.pool = pool
        self.clock = clock
        self._paced: tuple[int, dict[str, float]] = (-1, {})  # lines of the journal; paces of machines by these
        self._counted: tuple[tuple[int, ...], int] = ((), 0)  # lines, running, waiting; how many could start then

    def find(self, trial: Live, running: Collection[Live], waiting: Collection[Live]) -> Place | None:
        """The place of the next trial; None while it has to wait.

        Raises:
            IdatError: no worker is left, or none came.
        """
        # Its last chance is its own: until then it may have died of another's fault.
        place = self.pool.place(_taken(running), trial.last_chance, self._paces())
        return None if place is None or self._waits(trial, place, running, waiting) else place

    def follow(self, running: Collection[Live], waiting: Collection[Live]) -> None:
        """Have as many workers as there is work for, where their number is not fixed."""
        if self.pool.limit is not None:
            trials = len(running) + len(waiting) + self._ahead(running, waiting)
            self.pool.follow(trials, _taken(running))

    def _paces(self) -> dict[str, float]:
        if self.journal.length != self._paced[0]:
            self._paced = self.journal.length, paces(self.journal.records)
        return self._paced[1]

    def _waits(self, trial: Live, place: Place, running: Collection[Live], waiting: Collection[Live]) -> bool:
        """Whether a place is on so slow a machine that a faster one, busy now, will be done with the trial sooner.

        At most for as long as it would take there.
        """
        known = self._paces()
        here = known.get(self.pool.machine(place.worker), 1.0)
        if here == 1.0 or self.pool.seats > 1:
            return False
        seconds = seconds_of(self.journal.records, trial.job.config.flat(), known)
        busy = [(one, known.get(self.pool.machine(one.place.worker), 1.0)) for one in running if one.place]
        others = [(one.left(seconds * pace), pace) for one, pace in busy]
        now, trials = self.clock(), 1 + len(waiting) + self._ahead(running, [trial, *waiting])
        trial.held_since = now if trial.held_since is None else trial.held_since
        return now - trial.held_since < seconds * here and not gets_one(seconds, here, others, trials)

    def _ahead(self, running: Collection[Live], waiting: Collection[Live]) -> int:
        """How many more trials could start now."""
        now = (self.journal.length, len(running), len(waiting))
        if now != self._counted[0]:
            jobs = [live.job for live in (*running, *waiting)]
            self._counted = now, ahead(self.plan, self.journal, jobs, MOST_AT_ONCE)
        return self._counted[1]


def _taken(running: Collection[Live]) -> list[Place]:
    return [live.place for live in running if live.place]
