"""Machines of different speed: how fast each is, and whether a trial should rather wait for a faster one."""

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from idat_tune.journal import TrialRecord
from idat_tune.search.estimates import cost_key

K = TypeVar("K", bound=Hashable)

ALIKE = 1.25  # times slower than the fastest: below that it may be chance, and makes no difference
ROUNDS = 4  # of the fit, which is exact after one where every machine had every kind of config


def paces(records: Sequence[TrialRecord]) -> dict[str, float]:
    """How many times longer than the fastest each machine takes for the same, by its name; 1 for all that are alike.

    Fitted as log(seconds of an epoch) = kind of config + machine, by medians, since machines get different configs.
    """
    shown = [(cost_key(record.config), record.node, _epoch(record)) for record in records if record.epochs]
    known = [(key, node, math.log(seconds)) for key, node, seconds in shown if node and seconds > 0]
    of_node: dict[str, float] = defaultdict(float)
    for _ in range(ROUNDS):
        of_key = _medians((key, value - of_node[node]) for key, node, value in known)
        of_node = defaultdict(float, _medians((node, value - of_key[key]) for key, node, value in known))
    fastest = min(of_node.values(), default=0.0)
    times = {node: math.exp(value - fastest) for node, value in of_node.items()}
    return {node: pace if pace > ALIKE else 1.0 for node, pace in times.items()}


def seconds_of(records: Sequence[TrialRecord], config: Mapping[str, object], pace: Mapping[str, float]) -> float:
    """What a run of a config takes on the fastest machine: as others of its kind did, else as all did; 0 if unknown."""
    whole = [record for record in records if record.epochs and len(record.epochs) == record.config["epochs"]]
    alike = [record for record in whole if cost_key(record.config) == cost_key(config)]
    return statistics.median([one.seconds / pace.get(one.node or "", 1.0) for one in alike or whole] or [0.0])


def gets_one(seconds: float, pace: float, others: Sequence[tuple[float, float]], trials: int) -> bool:
    """Whether a free place would get one of the trials that remain, each being given to the place that ends it first.

    Args:
        seconds: that a trial takes on the fastest machine.
        pace: of the free place's machine.
        others: of every other place, in how many seconds it is free, and the pace of its machine.
        trials: how many remain.
    """
    free, paces_of = [0.0, *(ahead for ahead, _ in others)], [pace, *(one for _, one in others)]
    for _ in range(trials):
        ends = [begin + seconds * one for begin, one in zip(free, paces_of, strict=True)]
        first = ends.index(min(ends))
        if first == 0:
            return True
        free[first] = ends[first]
    return False


def _epoch(record: TrialRecord) -> float:
    """Seconds of an epoch, without the first, in which steps are captured."""
    return statistics.median([epoch.seconds for epoch in record.epochs[1:] or record.epochs])


def _medians(pairs: Iterable[tuple[K, float]]) -> dict[K, float]:
    found: dict[K, list[float]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return {key: statistics.median(values) for key, values in found.items()}
