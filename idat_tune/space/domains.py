"""What a key may be and when: domains, conditions, and both together as a param."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Choice:
    """One of a list of values, in no order."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.values))}]"

    def written(self) -> dict[str, list[Any]]:
        """As a space file has it."""
        return {"choice": list(self.values)}


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both included; uniform in its logarithm if `log`."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def written(self) -> dict[str, list[Any]]:
        """As a space file has it."""
        return {f"{'int_' * self.integer}{'log_' * self.log}uniform": [self.low, self.high]}


Domain = Choice | Range
Ask = Callable[[str, Domain], Any]


def distribution(domain: Domain) -> "BaseDistribution":
    """Optuna's form of a domain."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


@dataclass(frozen=True)
class Condition:
    """Holds when a key has one of some values (or, negated, when it has none of them)."""

    key: str
    values: tuple[Any, ...]
    negated: bool = False

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it holds for what has been chosen; a key that is itself switched off holds for nothing."""
        return self.key in chosen and (chosen[self.key] in self.values) != self.negated

    def __str__(self) -> str:
        return f"{self.key}{'!=' if self.negated else '='}{'|'.join(map(str, self.values))}"


@dataclass(frozen=True)
class Param:
    """A domain for a key, under conditions; the same key may have several, one at most active at a time."""

    key: str
    domain: Domain
    conditions: tuple[Condition, ...] = ()
    label: str = ""  # unique name: the key, with its conditions where it stands several times

    def active(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the key is to be chosen from this domain, given what was chosen before."""
        return all(condition.holds(chosen) for condition in self.conditions)

    def written(self) -> dict[str, Any]:
        """As a space file has it."""
        found: dict[str, Any] = self.domain.written()
        for word, negated in (("when", False), ("unless", True)):
            conditions = {c.key: list(c.values) for c in self.conditions if c.negated == negated}
            found |= {word: conditions} if conditions else {}
        return found
