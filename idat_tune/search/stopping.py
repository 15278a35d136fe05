"""Stopping rules: which proposed trials end before their last epoch."""

import statistics
from typing import Protocol

from idat_tune.search.config import HALVING, MEDIAN, NONE

ETA = 3  # of halving: the best 1 / ETA of a rung goes on, and the next rung is ETA times as far
GRACE = 0.2  # part of the epochs that every trial gets: with less, the best config is often stopped
OTHERS = 3  # trials that the median is at least taken of


class Rule(Protocol):
    """Told of every epoch of every explored trial, in the order in which they come in."""

    def stops(self, trial: str, epochs: int, score: float) -> bool:
        """Take in the score of a trial after so many epochs; whether it should end here."""


class Halving:
    """Asynchronous successive halving: whoever reaches a rung goes on if it is in the best part of those before it.

    Rungs lie at `grace`, `grace * eta`, `grace * eta^2`, ... epochs, short of the last one. A trial is compared with
    the trials that reached the rung so far; so nobody waits, and the first one always goes on.
    """

    def __init__(self, epochs: int, grace: int, eta: int = ETA):
        self.eta = eta
        self.rungs: dict[int, dict[str, float]] = {}  # by epochs: score of every trial that got there
        while grace < epochs:
            self.rungs[grace] = {}
            grace *= eta

    def stops(self, trial: str, epochs: int, score: float) -> bool:
        """At a rung, whether the score is below the best 1 / eta of those that came before."""
        rung = self.rungs.get(epochs)
        if rung is None or trial in rung:  # a trial whose worker died comes by again
            return False
        earlier = list(rung.values())
        rung[trial] = score
        return bool(earlier) and score < _best_part(earlier, self.eta)


def _best_part(scores: list[float], eta: int) -> float:
    """The score above which the best 1 / eta lie, interpolated."""
    return scores[0] if len(scores) == 1 else statistics.quantiles(scores, n=eta, method="inclusive")[-1]


class MedianRule:
    """A trial ends when the best it has shown is below the median of what the others showed on average.

    An average goes from the grace period to the same epoch (Golovin et al., Google Vizier, 2017).
    """

    def __init__(self, epochs: int, grace: int):
        self.grace = grace
        self.last = epochs
        self.best: dict[str, float] = {}  # by trial
        self.means: dict[int, dict[str, float]] = {}  # by epochs, by trial

    def stops(self, trial: str, epochs: int, score: float) -> bool:
        """After the grace period, whether the best score so far is below the median of the others' means."""
        self.best[trial] = max(score, self.best.get(trial, score))
        if epochs < self.grace:
            return False
        others = self.means.setdefault(epochs, {})
        before = self.means.get(epochs - 1, {}).get(trial, score)
        others[trial] = before + (score - before) / (epochs - self.grace + 1)
        means = [mean for other, mean in others.items() if other != trial]
        return epochs < self.last and len(means) >= OTHERS and self.best[trial] < statistics.median(means)


class Never:
    """Every trial runs to its end."""

    def __init__(self, epochs: int, grace: int):
        """Alike for all rules; nothing is needed here."""

    def stops(self, trial: str, epochs: int, score: float) -> bool:
        """Never."""
        return False


RULES = {HALVING: Halving, MEDIAN: MedianRule, NONE: Never}


def rule(kind: str, epochs: int, warmup_epochs: int) -> Rule:
    """The rule of that name, for runs of so many epochs; nothing ends inside the learning rate's warm-up."""
    return RULES[kind](epochs, grace(epochs, warmup_epochs))


def grace(epochs: int, warmup_epochs: int) -> int:
    """Epochs that every trial gets."""
    return min(max(warmup_epochs + 1, int(GRACE * epochs)), epochs)
