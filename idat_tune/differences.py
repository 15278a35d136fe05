"""Paired differences of accuracies, from images and runs together: one variance, the same from either side."""

# R runs, N images

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95  # of all intervals
ENOUGH = 2  # degrees of freedom of an interval: with one its ends are 12.7 standard errors away
PRIOR = 12  # degrees of freedom that what all pairs show of the noise of runs is worth in the estimate of a pair's own


@dataclass(frozen=True)
class Difference:
    """A paired difference of accuracies, as fractions; ours minus theirs."""

    mean: float
    standard_error: float
    degrees: float  # of freedom, of the standard error; 0 where there is one pair only
    pairs: int  # of runs

    def bound(self, probability: float) -> float:
        """How far a mean without a true difference lies above 0 at most, with that probability; by Student's t."""
        return _student(probability, self.degrees) * self.standard_error if self.degrees >= ENOUGH else math.inf

    @property
    def half_width(self) -> float:
        """Half the 95 % interval; infinite where too little is known of the noise for one."""
        return self.bound(0.5 + LEVEL / 2)

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


@dataclass(frozen=True)
class Outcome:
    """What a run came to on the images that it was measured on."""

    accuracy: float  # a fraction
    loss: float = 0.0  # mean cross-entropy
    hits: "np.ndarray | None" = None  # (N,) whether each image was named rightly; None where that was not kept


Runs = Mapping[int, Outcome]  # of a config: by split, or by seed


@dataclass(frozen=True)
class Noise:
    """What all pairs of configs together show of the noise between runs."""

    variance: float = 0.0  # of the difference of two runs, without that of the images; per run
    degrees: int = 0  # of freedom that it is worth beside a pair's own


class Design:
    """How the runs of a config divide the images among them."""

    def __init__(self, distinct: int, crossed: bool):
        """Images in all; whether every run saw all of them (the test), or each its own (splits)."""
        self.distinct = distinct
        self.crossed = crossed

    def of_images(self, ours: Runs, theirs: Runs, keys: Sequence[int]) -> tuple[float, float]:
        """What images contribute to a difference: to the variance between runs, and to that of the mean beside it.

        Hit or miss of the one minus that of the other is, for image i in run r, d + u_i + v_r + e_ir.
        """
        import numpy as np

        pairs = [(ours[key].hits, theirs[key].hits) for key in keys]
        rows = [us.astype(np.int8) - them for us, them in pairs if us is not None and them is not None]
        if len(rows) < len(keys):
            return 0.0, 0.0
        images = sum(map(len, rows))
        if not self.crossed:
            of_one = sum(((row - row.mean()) ** 2).sum() for row in rows) / max(images - len(rows), 1)
            repeated = max(of_one / self.distinct - of_one / images, 0.0)  # an image counts as one however often
            return float(of_one / (images / len(rows))), float(repeated)
        of_all_RN = np.stack(rows).astype(float)
        runs, count = of_all_RN.shape
        by_image = runs * of_all_RN.mean(axis=0).var(ddof=1)
        rest = of_all_RN - of_all_RN.mean(axis=0) - of_all_RN.mean(axis=1, keepdims=True) + of_all_RN.mean()
        left = (rest**2).sum() / ((runs - 1) * (count - 1)) if runs > 1 else 0.0
        return float(left / count), float(max(by_image - left, 0.0) / runs / count)


def noise_of(configs: Iterable[Runs], design: Design) -> Noise:
    """What the pairs of those configs show of the noise of runs.

    The median over pairs: a config that collapses in one run says nothing of how steady the rest are. Below 0, as an
    estimate may be, it counts as 0.
    """
    known = [runs for runs in configs if len(runs) > 1]
    if len(known) < 3:  # of two the pair itself is all there is
        return Noise()
    found = [_of_runs(ours, theirs, design) for ours, theirs in itertools.combinations(known, 2)]
    degrees = sum(len(runs) - 1 for runs in known) - 2 * (max(map(len, known)) - 1)
    return Noise(max(statistics.median(found), 0.0), max(min(PRIOR, degrees), 0))


def _of_runs(ours: Runs, theirs: Runs, design: Design) -> float:
    """What a pair shows of the variance between runs beyond that of their images; 0 on average where there is none."""
    from scipy.special import chdtri

    keys = sorted(ours.keys() & theirs.keys())
    if len(keys) < 2:
        return 0.0
    between = statistics.variance([ours[key].accuracy - theirs[key].accuracy for key in keys])
    own = len(keys) - 1
    low = float(chdtri(own, 0.5)) / own  # part of its mean at which the median of such an estimate lies
    return between / low - design.of_images(ours, theirs, keys)[0]


def difference(ours: Runs, theirs: Runs, design: Design, noise: Noise, least: float = 0.0) -> Difference | None:
    """The difference over the splits (or seeds) that both have; None if there are none.

    A mixed model in closed form: the variance of the mean is B / R + U, with B the variance between the R differences
    of runs, which holds what each run's own images and luck contribute, and U that of images that several runs share.
    B from a handful of differences is uncertain itself, so that what the images of the pair and the runs of all pairs
    let expect counts too, as `noise.degrees` more differences would. The degrees of freedom of the sum are
    Satterthwaite's. Ours and theirs change places without a trace.

    Args:
        ours: by split or seed.
        theirs: likewise.
        design: what of the images they share.
        noise: of all that were compared so.
        least: a variance between runs that there is at least: two differences that agree by chance do not make it
            vanish.
    """
    keys = sorted(ours.keys() & theirs.keys())
    if not keys:
        return None
    each = [ours[key].accuracy - theirs[key].accuracy for key in keys]
    mean, own = statistics.fmean(each), len(keys) - 1
    degrees: float = own + noise.degrees
    if not degrees:
        return Difference(mean, math.inf, 0, 1)
    of_images, shared = design.of_images(ours, theirs, keys)
    squares = sum((value - mean) ** 2 for value in each)
    between = max((squares + noise.degrees * (of_images + noise.variance)) / degrees, least) / len(keys)
    if between:  # Satterthwaite: that of images is known as well as there are many
        degrees = (between + shared) ** 2 / (between**2 / degrees + shared**2 / max(design.distinct - 1, 1))
    return Difference(mean, math.sqrt(between + shared), degrees, len(keys))


def _student(probability: float, degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
