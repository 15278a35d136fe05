"""How long a search may explore: trials, hours, GPU-hours, patience; whatever ends first ends exploring."""

import math
import time
from collections.abc import Callable, Sequence

from idat_tune.journal import COMPLETE, EXPLORE, Journal, TrialRecord
from idat_tune.journal.state import SPENT
from idat_tune.search.plan import LINEAR, Plan

TRIALS, HOURS, GPU_HOURS, PATIENCE, GRID = "trials", "hours", "gpu-hours", "patience", "grid"
WHY = {
    TRIALS: "all trials that were asked for are proposed",
    HOURS: "the hours are spent",
    GPU_HOURS: "the GPU-hours are spent",
    PATIENCE: "the last trials brought nothing beyond the noise",
    GRID: "every point of the space was tried",
}
SAVE_EVERY = 10.0  # seconds; what a killed driver forgets at most


class Budget:
    """What exploring has spent, those sessions included that a resumed search had before."""

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        gpus: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.plan = plan
        self.journal = journal
        self.gpus = gpus  # that a trial takes
        self.clock = clock
        self.seconds, self.gpu_seconds = journal.state.seconds, journal.state.gpu_seconds
        self.running = 0  # explored trials, since `noted`
        self.noted = self.saved = clock()

    def note(self, running: int) -> None:
        """Count the time since the last call, and that so many explored trials run from now on.

        Called whenever that changes, and with every epoch.
        """
        now = self.clock()
        if self.running or self.journal.state.ended_by is None:
            self.seconds += now - self.noted
        self.gpu_seconds += (now - self.noted) * self.running * self.gpus
        self.noted = now
        known = self.journal.state.seconds, self.journal.state.gpu_seconds
        due = running < self.running or now - self.saved > SAVE_EVERY
        if due and known != (self.seconds, self.gpu_seconds):
            self.saved = now
            self.journal.decide(SPENT, seconds=self.seconds, gpu_seconds=self.gpu_seconds)
        self.running = running

    def ended_by(self, exhausted: bool, probes: int = 0) -> str | None:
        """What has ended exploring, if anything has.

        Args:
            exhausted: whether the sampler has no more to propose.
            probes: runs of the linear arm among those that run, which are no trials.
        """
        self.note(self.running)
        explored = [record for record in self.journal.of(EXPLORE) if LINEAR not in record.arms]  # which are no trials
        asked = self.plan.config.explore
        ended = {
            TRIALS: len(explored) + self.running - probes >= asked.trials,
            HOURS: asked.hours is not None and self.seconds >= 3600 * asked.hours,
            GPU_HOURS: asked.gpu_hours is not None and self.gpu_seconds >= 3600 * asked.gpu_hours,
            PATIENCE: asked.patience is not None and longest_without_gain(explored) >= asked.patience,
            GRID: exhausted,
        }
        return next((limit for limit, reached in ended.items() if reached), None)


def longest_without_gain(explored: Sequence[TrialRecord]) -> int:
    """The most trials in a row, in the order in which they ended, that brought nothing beyond the noise.

    A complete trial is a gain when its validation accuracy is above that of the last gain by more than the standard
    error of an accuracy p on n images, sqrt(p (1 - p) / n). So small steps add up until they are one. Arms set the
    mark that others have to pass, but are not counted: nobody proposed them.
    """
    mark, longest, since = -math.inf, 0, 0
    for record in explored:
        accuracy = record.val_accuracy
        if record.status == COMPLETE and accuracy is not None and accuracy > mark + _error(mark, record.val_images):
            mark, since = accuracy, 0
        elif not record.arms:
            since += 1
            longest = max(longest, since)
    return longest


def _error(accuracy: float, images: int) -> float:
    """One standard error of an accuracy, binomial; none where nothing was measured yet."""
    return math.sqrt(accuracy * (1 - accuracy) / max(images, 1)) if 0 <= accuracy <= 1 else 0.0
