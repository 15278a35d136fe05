"""A portfolio of starting configs from recorded curves, one config after the other."""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from idat_tune.replay.table import ARMS, Curves

SIZE = 5
DIGITS = 3  # significant ones that a starting config keeps


def portfolio(sources: Sequence[Mapping[str, Curves]]) -> list[str]:
    """The names of the configs that raise the best validation accuracy so far the most, in the mean over tasks.

    What the arms reach, which every search runs anyway, is there from the beginning. Where no config raises the mean
    any more, the best of the rest follows: on a single task that is soon, since its best config comes first.

    Args:
        sources: the curves by config of each task to learn from; all have the same configs.
    """
    reached = [{name: _validated(curves) for name, curves in source.items()} for source in sources]
    best = [max(of_task[arm] for arm in ARMS) for of_task in reached]
    left = [name for name in reached[0] if name not in ARMS and all(name in of_task for of_task in reached)]
    chosen: list[str] = []
    while left and len(chosen) < SIZE:
        following = max(left, key=partial(_with, reached=reached, best=best))
        best = [max(so_far, of_task[following]) for so_far, of_task in zip(best, reached, strict=True)]
        chosen.append(following)
        left.remove(following)
    return chosen


def _with(name: str, reached: Sequence[Mapping[str, float]], best: Sequence[float]) -> tuple[float, float]:
    """What the best so far would be with one more config, and that config's own accuracy; means over tasks."""
    values = [of_task[name] for of_task in reached]
    return statistics.fmean(map(max, best, values)), statistics.fmean(values)


def _validated(curves: Curves) -> float:
    """Mean validation accuracy over a config's runs; 0 for one that diverged."""
    complete = [run.val_accuracy[-1] if run.test_accuracy is not None else 0.0 for run in curves.runs.values()]
    return statistics.fmean(complete)


def rounded(point: Mapping[str, Any]) -> dict[str, Any]:
    """A config with its numbers as short as a literal should be."""
    return {key: float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for key, v in point.items()}
