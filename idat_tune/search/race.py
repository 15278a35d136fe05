"""Which config wins: a race of contenders over the same splits, judged by paired differences."""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

LEVEL = 0.95  # of all intervals
FEWEST = 2  # splits before a contender can be out: of one difference the noise is not known
ENOUGH = 2  # degrees of freedom of an interval: with one its ends are 12.7 standard errors away
PRIOR = 4  # degrees of freedom that the other contenders' noise is worth in the estimate of a pair's own


@dataclass(frozen=True)
class Contender:
    """A config that may win."""

    id: str  # of the explored trial that it comes from
    trainable_params: int  # of its student


@dataclass(frozen=True)
class Difference:
    """A paired difference of accuracies, as fractions; ours minus theirs."""

    mean: float
    standard_error: float
    degrees: int  # of freedom, of the standard error; 0 where there is one pair only
    pairs: int

    @property
    def half_width(self) -> float:
        """Half the 95 % interval, by Student's t; infinite where too little is known of the noise for one."""
        return _student(0.5 + LEVEL / 2, self.degrees) * self.standard_error if self.degrees >= ENOUGH else math.inf

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference."""
        return self.mean - self.half_width, self.mean + self.half_width

    @property
    def reliable(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.mean) > self.half_width

    @property
    def beyond_error(self) -> bool:
        """Whether ours is better by more than one standard error."""
        return self.mean > self.standard_error


def paired(
    ours: Mapping[int, float],
    theirs: Mapping[int, float],
    shared: float = 0.0,
    prior: tuple[float, int] = (0.0, 0),
    least: float = 0.0,
) -> Difference | None:
    """The difference over the splits (or seeds) that both have; None if there are none.

    Args:
        ours: accuracies by split.
        theirs: likewise.
        shared: val over train images of a split, where splits share images; their differences are then correlated, and
            the variance of the mean is (1/n + shared) times that of a difference, not 1/n times (Nadeau and Bengio,
            Inference for the generalization error, 2003).
        prior: a variance of such differences that is known from elsewhere, and the degrees of freedom it is worth.
        least: a variance that the noise has at least: two differences that agree by chance do not make it vanish.
    """
    differences = [ours[key] - theirs[key] for key in ours if key in theirs]
    if not differences:
        return None
    own = len(differences) - 1
    variance, worth = prior
    degrees = own + worth
    if not degrees:
        return Difference(statistics.fmean(differences), math.inf, 0, 1)
    found = max((_squares(differences) + worth * variance) / degrees, least)
    error = math.sqrt((1 / len(differences) + shared) * found)
    return Difference(statistics.fmean(differences), error, degrees, len(differences))


def _squares(values: Sequence[float]) -> float:
    mean = statistics.fmean(values)
    return sum((value - mean) ** 2 for value in values)


def _student(probability: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


@dataclass(frozen=True)
class Choice:
    """What a race came to."""

    winner: str
    best: str  # the highest mean; the winner may be a smaller one that is no worse beyond the noise
    gain: Difference | None  # of the winner over the default; None where the default is the winner, or failed


@dataclass
class Race:
    """Contenders on the same splits, split by split, of whom those that can no longer win are left out.

    The order in which results come in does not matter for the choice, only for who is left out when.
    """

    contenders: list[Contender]  # best first, as explored
    folds: int
    shared: float  # val over train images of a split
    default: str = ""  # the contender that all others must beat; it is never out
    val_images: int = 200  # of a split; accuracies move in steps of one of them
    results: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)  # accuracy and loss by split
    failed: set[str] = field(default_factory=set)

    def add(self, contender: str, fold: int, accuracy: float, loss: float) -> None:
        """The result of a contender on a split: accuracy a fraction, loss the mean cross-entropy."""
        self.results.setdefault(contender, {})[fold] = (accuracy, loss)

    def fail(self, contender: str) -> None:
        """A run of the contender failed: a config that fails on some splits is none to be handed over."""
        self.failed.add(contender)

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
        """Who may still win: nobody is better than them beyond the noise. The default always stays."""
        there = {contender.id for contender in self.contenders} - self.failed
        measured = [one for one in there if len(self.results.get(one, ())) >= FEWEST]
        leader = max(measured, key=self.mean, default=None)
        if leader is None:
            return there
        return {one for one in there if one in (leader, self.default) or not self._beaten(one, leader)}

    def _beaten(self, contender: str, leader: str) -> bool:
        behind = self.difference(contender, leader)
        return behind is not None and behind.pairs >= FEWEST and behind.mean < 0 and behind.reliable

    def mean(self, contender: str) -> tuple[float, float]:
        """Mean accuracy over the contender's splits, and minus its mean loss, which breaks ties."""
        found = self.results[contender].values()
        return statistics.fmean(accuracy for accuracy, _ in found), -statistics.fmean(loss for _, loss in found)

    def difference(self, ours: str, theirs: str) -> Difference | None:
        """The difference of two contenders over the splits that both have run; None if there are none.

        A variance from a handful of differences is uncertain itself, so the noise that the other contenders show
        against the same one counts too.
        """
        base = self._accuracies(theirs)
        others = [
            [accuracies[fold] - base[fold] for fold in accuracies if fold in base]
            for other in self.results
            if other not in (ours, theirs, *self.failed)
            for accuracies in [self._accuracies(other)]
        ]
        return paired(self._accuracies(ours), base, self.shared, self._prior(others), self.val_images**-2)

    def _prior(self, others: Sequence[Sequence[float]]) -> tuple[float, int]:
        """The variance that is usual among others, and the degrees of freedom it is worth.

        The median, because a config that collapses on one split says nothing of how steady the rest are.
        """
        several = [values for values in others if len(values) > 1]
        if not several:
            return 0.0, 0
        variances = [statistics.variance(values) for values in several]
        return statistics.median(variances), min(PRIOR, sum(len(values) - 1 for values in several))

    def _accuracies(self, contender: str) -> dict[int, float]:
        return {fold: accuracy for fold, (accuracy, _) in self.results.get(contender, {}).items()}

    def choice(self) -> Choice | None:
        """Who wins, of those that have run all splits; None if nobody has.

        The best mean; of those that are no worse than it beyond one standard error, the one with the fewest trainable
        parameters. Whoever does not beat the default beyond one standard error is not considered, and if nobody does,
        the default wins.
        """
        through = {c.id: c for c in self.contenders if len(self.results.get(c.id, {})) == self.folds}
        for one in self.failed:
            through.pop(one, None)
        considered = [one for one in through if self.default not in through or self._beats_default(one)]
        if not considered:
            return Choice(self.default, self.default, None) if self.default in through else None
        best = max(considered, key=self.mean)
        level = [one for one in considered if not self._worse(one, best)]
        winner = min(level, key=lambda one: (through[one].trainable_params, tuple(-x for x in self.mean(one))))
        return Choice(winner, best, self.difference(winner, self.default) if self.default in through else None)

    def _beats_default(self, contender: str) -> bool:
        gain = self.difference(contender, self.default)
        return contender != self.default and gain is not None and gain.beyond_error

    def _worse(self, contender: str, best: str) -> bool:
        behind = self.difference(best, contender)
        return contender != best and behind is not None and behind.beyond_error

    def spread(self, contender: str) -> tuple[float, float]:
        """Mean accuracy over the contender's splits, and its standard error, corrected for the images they share.

        As with differences, what other contenders show of the noise between splits counts too.
        """
        own = list(self._accuracies(contender).values())
        others = [list(self._accuracies(other).values()) for other in self.results if other != contender]
        variance, worth = self._prior(others)
        degrees = len(own) - 1 + worth
        squares = _squares(own) + worth * variance
        found = max(squares / degrees, self.val_images**-2) if degrees else math.inf
        return statistics.fmean(own), math.sqrt((1 / len(own) + self.shared) * found)
