"""A trial of a search that is running, or about to: what was heard of it, and how often its workers died."""

from dataclasses import dataclass, field
from typing import Any

import optuna

from idat_tune.metrics import EpochMetrics
from idat_tune.search.plan import Job
from idat_tune.worker.pool import Place

RETRIES = 2  # of a trial whose worker died; one that failed by itself would fail again
OF_DEFAULT = 9  # of a run of the default, without which nobody could be held against it


@dataclass
class Live:
    """A trial that is running, or about to."""

    job: Job
    proposal: optuna.trial.Trial | None = None  # what the sampler calls it; None if it did not propose it
    deaths: int = 0  # workers that it lost so far
    begun: bool = False  # whether it ran before, on a worker that it lost
    place: Place | None = None  # once it is running
    reported: int = -1  # newest epoch that the sampler was told of
    started: float = 0.0  # by the clock of the budget
    began: float = 0.0  # the same as Unix time in seconds
    epochs: list[EpochMetrics] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)  # its newest result
    silent: float = 0.0  # seconds since then, as far as they were watched
    waits: list[float] = field(default_factory=list)  # seconds to each result
    held_since: float | None = None  # by that clock: since when it waits for a faster machine
    stalled: str | None = None  # why it was taken for hung
    had: int = 1  # workers, this one included
    retries: int = RETRIES

    @property
    def last_chance(self) -> bool:
        """Whether it has failed if this worker dies too."""
        return self.deaths >= self.retries

    def left(self, usual: float) -> float:
        """Seconds that it will yet take, by its own epochs; `usual` before the first."""
        if not self.epochs:
            return usual
        pace = sum(epoch.seconds for epoch in self.epochs) / len(self.epochs)
        return (self.job.config.epochs - len(self.epochs)) * pace

    def hear(self, result: dict[str, Any]) -> EpochMetrics | None:
        """Take a result in."""
        self.last = result
        self.waits.append(self.silent)
        self.silent = 0.0
        if "lr" not in result:  # a failure, or the test, which have no metrics of epochs
            return None
        epoch = EpochMetrics.from_dict(result)
        self.epochs.append(epoch)
        return epoch

    def again(self, spared: bool = False) -> "Live":
        """The same trial from its beginning, after its worker died; once more only if it hung, which takes long.

        `spared`: whether the trial had no part in it.
        """
        deaths = self.deaths if spared else self.retries if self.stalled else self.deaths + 1
        next_one = Live(self.job, self.proposal, deaths, True, reported=self.reported, retries=self.retries)
        next_one.had = self.had + (not spared)
        return next_one
