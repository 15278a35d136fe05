"""Which config wins: a race of contenders over the same splits, judged by paired differences."""

import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from idat_tune.differences import Design, Difference, Noise, Outcome, difference, noise_of

FEWEST = 2  # splits before a contender can be out: of one difference the noise is not known
# Chance at most that any contender passes the gate though none is better than the default. No claim rests on it: those
# of the verdict hold at 5 %. It weighs gains that are let go against a lost default (benchmarks/calibration.md).
FALSE_WINS = 0.1


@dataclass(frozen=True)
class Contender:
    """A config that may win."""

    id: str  # of the explored trial that it comes from
    trainable_params: int  # of its student


@dataclass(frozen=True)
class Choice:
    """What a race came to."""

    winner: str
    smallest: str  # of those beyond the gate and no worse than the winner within the noise, the one that trains least
    gain: Difference | None  # of the winner over the default; None where the default is the winner, or failed


@dataclass
class Race:
    """Contenders on the same splits, split by split, of whom those that can no longer win are left out.

    The order in which results come in does not matter for the choice, only for who is left out when.
    """

    contenders: list[Contender]  # best first, as explored
    folds: int
    images: int = 1000  # of all splits together
    default: str = ""  # the contender that all others must beat; it is never out
    val_images: int = 200  # of a split; accuracies move in steps of one of them
    results: dict[str, dict[int, Outcome]] = field(default_factory=dict)  # by split
    failed: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)  # who else is never out, as a question is asked of them

    def add(self, contender: str, fold: int, outcome: Outcome) -> None:
        """The result of a contender on a split."""
        self.results.setdefault(contender, {})[fold] = outcome
        self._forget()

    def fail(self, contender: str) -> None:
        """A run of the contender failed: a config that fails on some splits is none to be handed over."""
        self.failed.add(contender)
        self._forget()

    def _forget(self) -> None:
        self.__dict__.pop("noise", None)

    def next(self, running: Collection[tuple[str, int]] = ()) -> tuple[str, int] | None:
        """The contender and split to run next; None when all that may still win are through or running."""
        alive = self.alive()
        for fold in range(self.folds):
            for contender in self.contenders:
                pair = (contender.id, fold)
                if contender.id in alive and fold not in self.results.get(contender.id, {}) and pair not in running:
                    return pair
        return None

    def alive(self) -> set[str]:
        """Who may still win: nobody is better than them beyond the noise."""
        there = {contender.id for contender in self.contenders} - self.failed
        measured = [one for one in there if len(self.results.get(one, ())) >= FEWEST]
        leader = max(measured, key=self.mean, default=None)
        if leader is None:
            return there
        stays = {leader, self.default, *self.kept}
        return {one for one in there if one in stays or not self._beaten(one, leader)}

    def _beaten(self, contender: str, leader: str) -> bool:
        behind = self.difference(contender, leader)
        return behind is not None and behind.pairs >= FEWEST and behind.mean < 0 and behind.reliable

    def mean(self, contender: str) -> tuple[float, float]:
        """Mean accuracy over the contender's splits, and minus its mean loss, which breaks ties."""
        found = self.results[contender].values()
        return statistics.fmean(one.accuracy for one in found), -statistics.fmean(one.loss for one in found)

    @property
    def design(self) -> Design:
        """Every split has images of its own."""
        return Design(self.images, crossed=False)

    @cached_property
    def noise(self) -> Noise:
        """What all pairs show of the noise between runs."""
        return noise_of([runs for one, runs in self.results.items() if one not in self.failed], self.design)

    def difference(self, ours: str, theirs: str) -> Difference | None:
        """The difference of two contenders over the splits that both have run; None if there are none."""
        us, them = (self.results.get(one, {}) for one in (ours, theirs))
        return difference(us, them, self.design, self.noise, least=self.val_images**-2)

    def choice(self) -> Choice | None:
        """Who wins, of those that have run all splits; None if nobody has.

        The best mean of those that beat the default beyond the gate; if nobody does, the default. The gate holds for
        all contenders together: with the more of them the luckiest lies the higher, so each has its part of the error
        (Bonferroni).
        """
        through = {c.id: c for c in self.contenders if 0 < len(self.results.get(c.id, {})) == self.folds}
        for one in self.failed:
            through.pop(one, None)
        considered = [one for one in through if self.default not in through or self.beats_default(one)]
        if not considered:
            return Choice(self.default, self.default, None) if self.default in through else None
        winner = max(considered, key=self.mean)
        level = [one for one in considered if not self._worse(one, winner)]
        smallest = min(level, key=lambda one: (through[one].trainable_params, tuple(-x for x in self.mean(one))))
        return Choice(winner, smallest, self.difference(winner, self.default) if self.default in through else None)

    def beats_default(self, contender: str) -> bool:
        """Whether a contender passes the gate."""
        gain = self.difference(contender, self.default)
        rivals = max(sum(one.id not in self.kept for one in self.contenders) - 1, 1)  # twins came after the choice
        return contender != self.default and gain is not None and gain.mean > gain.bound(1 - FALSE_WINS / rivals)

    def _worse(self, contender: str, winner: str) -> bool:
        behind = self.difference(winner, contender)
        return contender != winner and behind is not None and behind.beyond_error

    def spread(self, contender: str) -> tuple[float, float]:
        """Mean accuracy over the contender's splits, and its standard error: of images, and of runs beside them.

        The noise of a run is half of that of a difference of two.
        """
        runs = self.results[contender]
        mean = statistics.fmean(one.accuracy for one in runs.values())
        of_images = mean * (1 - mean) / min(self.images, self.val_images * len(runs))
        return mean, math.sqrt(of_images + self.noise.variance / 2 / len(runs))
