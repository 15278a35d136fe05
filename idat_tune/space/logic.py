"""Whether a space has a point that fulfils some conditions: what can never hold, and what holds at once."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from idat_tune.errors import BadInput, unknown
from idat_tune.space.domains import Choice, Condition, Param

MOST_STEPS = 100_000  # of looking for a point; spaces that people write need some dozens
_OTHER = object()  # a value of a range that no condition names


class _Steps:
    """Counts, so that conditions that are entangled beyond reason end in a sentence."""

    def __init__(self) -> None:
        self.done = 0

    def count(self) -> None:
        self.done += 1
        if self.done > MOST_STEPS:
            raise BadInput("the conditions are too entangled to be checked; write fewer of them, or fewer values")


def possible(
    wanted: Sequence[Condition], params: Sequence[Param], fixed: Mapping[str, Any], steps: _Steps | None = None
) -> bool:
    """Whether some point of the space fulfils all of these conditions.

    Raises:
        BadInput: that would take very long to find out.
    """
    steps = steps or _Steps()
    steps.count()
    if not all(condition.holds(fixed) for condition in wanted if condition.key in fixed):
        return False
    wanted = [condition for condition in wanted if condition.key not in fixed]
    if not wanted:
        return True
    key = wanted[0].key
    return any(
        possible([*wanted, *param.conditions], params, {**fixed, key: value}, steps)
        for param in params
        if param.key == key
        for value in _values(param, wanted, params)
    )


def _values(param: Param, wanted: Sequence[Condition], params: Sequence[Param]) -> Sequence[Any]:
    """The values of a param that any condition can tell apart."""
    if isinstance(param.domain, Choice):
        return param.domain.values
    everywhere = [*wanted, *(condition for other in params for condition in other.conditions)]
    named = [v for condition in everywhere if condition.key == param.key for v in condition.values if v in param.domain]
    return [*dict.fromkeys(named), _OTHER]


def check_conditions(params: Sequence[Param], fixed: Mapping[str, Any]) -> None:
    """Refuse a param that can never be searched, and a key with two domains at the same time.

    Raises:
        BadInput: naming the key and its conditions.
    """
    for param in params:
        for condition in param.conditions:
            _check_values(param, condition, params, fixed)
        if param.conditions and not possible(param.conditions, params, fixed):
            raise BadInput(
                f"'{param.key}' would never be searched: no point of this space has "
                f"{' and '.join(map(str, param.conditions))}; change its conditions, or leave it out"
            )
    for one, other in combinations(params, 2):
        if one.key == other.key and possible([*one.conditions, *other.conditions], params, fixed):
            raise BadInput(
                f"'{one.key}' has two domains at once where {' and '.join(map(str, one.conditions))} and "
                f"{' and '.join(map(str, other.conditions))}; let one condition exclude the other"
            )


def _check_values(param: Param, condition: Condition, params: Sequence[Param], fixed: Mapping[str, Any]) -> None:
    """A condition on a value that its key can never have is a slip; where the key is fixed, others do no harm."""
    domains = [other.domain for other in params if other.key == condition.key]
    for value in condition.values:
        if condition.key not in fixed and not any(value in domain for domain in domains):
            what = f"value of '{condition.key}' in the condition of '{param.key}':"
            raise unknown(what, value, [str(v) for d in domains for v in (d.values if isinstance(d, Choice) else [d])])
