"""From a proposal to the recorded config that is most like it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from idat_tune.space import Choice, Domain, Space

ELSEWHERE = 1e6  # beyond any distance between configs that ask for the same labels


class Nearest:
    """Recorded configs as points: a coordinate per label, from 0 to 1 over its domain, absent where not asked for.

    Numbers that span factors lie by their logarithm, whether drawn from a range or chosen from a list; other choices
    are 0 or 1 apart. Configs with other labels (another branch of the conditions) are further than all with the same.
    """

    def __init__(self, space: Space, recorded: Mapping[str, Mapping[str, Any]]):
        """`recorded` is label to value, by config."""
        self.domains = {param.label: param.domain for param in space.params}
        self.names = list(recorded)
        self.points_NL = np.array([self._coordinates(labels) for labels in recorded.values()])
        self.ordered_L = np.array([_ordered(domain) for domain in self.domains.values()])

    def order(self, labels: Mapping[str, Any]) -> list[str]:
        """All recorded configs, nearest first."""
        point_L = np.array(self._coordinates(labels))
        apart_NL = np.abs(self.points_NL - point_L)
        apart_NL = np.where(self.ordered_L, apart_NL, apart_NL > 0)
        one_lacks_NL = np.isnan(self.points_NL) != np.isnan(point_L)
        distance_N = np.nansum(np.where(np.isnan(self.points_NL + point_L), 0, apart_NL) ** 2, axis=1)
        distance_N += ELSEWHERE * one_lacks_NL.sum(axis=1)
        return [self.names[index] for index in np.argsort(distance_N, kind="stable")]

    def of(self, labels: Mapping[str, Any], among: Iterable[str]) -> str:
        """The nearest of some recorded configs."""
        open_to_it = set(among)
        return next(name for name in self.order(labels) if name in open_to_it)

    def _coordinates(self, labels: Mapping[str, Any]) -> list[float]:
        return [
            _coordinate(domain, labels[label]) if label in labels else math.nan
            for label, domain in self.domains.items()
        ]


def _ordered(domain: Domain) -> bool:
    return not isinstance(domain, Choice) or all(_positive_number(value) for value in domain.values)


def _positive_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _coordinate(domain: Domain, value: Any) -> float:
    if not isinstance(domain, Choice):
        low, high, log = domain.low, domain.high, domain.log
    elif _ordered(domain):
        low, high, log = min(domain.values), max(domain.values), True
    else:
        return float(domain.values.index(value))
    if low == high:
        return 0.0
    if log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)
