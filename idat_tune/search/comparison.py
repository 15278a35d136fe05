"""Two configs held against each other, as the result has it and in words."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from idat_tune.differences import Difference
from idat_tune.report import words


@dataclass(frozen=True)
class Comparison:
    """Two configs on the same splits or with the same seeds."""

    ours: str  # winner, default, ...
    theirs: str
    split: str  # confirm: val images of several splits; test: the test split, over seeds
    difference: Difference

    def as_dict(self) -> dict[str, Any]:
        """For JSON; differences are fractions, and what is not known is None."""
        found = self.difference
        low, high = found.interval
        return {
            "ours": self.ours,
            "theirs": self.theirs,
            "split": self.split,
            "mean": found.mean,
            "standard_error": _finite(found.standard_error),
            "interval": None if math.isinf(low) else [low, high],
            "pairs": found.pairs,
            "reliable": found.reliable,
        }

    def __str__(self) -> str:
        return self.shown()

    def shown(self, chosen: bool = False) -> str:
        """In words; of figures that a choice was made by nothing is claimed."""
        return words.compared(self.as_dict(), chosen)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def mean_and_spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of a final run."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "seeds": len(values)}
