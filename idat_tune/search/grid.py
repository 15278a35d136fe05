"""A space as a finite grid: every valid combination, each once."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from idat_tune.errors import BadInput
from idat_tune.space import Choice, Domain, Space

LEVELS = 5  # values taken of a range
MOST = 100_000  # points that a grid may have; they are all made before the first is tried


def points(space: Space) -> list[dict[str, Any]]:
    """The value of every label that is asked for, for each valid combination of levels, in a fixed order.

    Raises:
        BadInput: there are too many.
    """
    found = list(islice(_walk(space, levels), MOST + 1))
    if len(found) > MOST:
        raise BadInput(
            f"--sampler grid cannot be: space '{space.name}' has more than {MOST:,} points at {LEVELS} values per "
            "range; hold some settings with --set, or take --sampler tpe"
        )
    return [labels for labels, _ in found]


def walk(space: Space, levels: Callable[[Domain], tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """The points, by key and fixed settings included, for each valid combination of the values that `levels` takes."""
    return (point for _, point in _walk(space, levels))


def labelled(space: Space, levels: Callable[[Domain], tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """The points as `walk` has them, as the value of every label that is asked for."""
    return (labels for labels, _ in _walk(space, levels))


def _walk(space: Space, levels: Callable[[Domain], tuple[Any, ...]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Labels and point; depth first. What is asked for depends on what was chosen, so conditions hold by themselves."""
    path: list[int] = []  # which level was taken at each question
    while True:
        counts: list[int] = []
        labels: dict[str, Any] = {}

        def ask(label: str, domain: Domain, counts: list[int] = counts, labels: dict[str, Any] = labels) -> Any:
            values = levels(domain)
            if len(counts) == len(path):
                path.append(0)
            labels[label] = values[path[len(counts)]]
            counts.append(len(values))
            return labels[label]

        point = space.propose(ask)
        yield labels, point
        while path and path[-1] + 1 == counts[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


def levels(domain: Domain) -> tuple[Any, ...]:
    """The values of a domain: a choice's own; evenly spaced ones of a range, by factors where it is logarithmic."""
    if isinstance(domain, Choice):
        return domain.values
    low, high, steps = domain.low, domain.high, LEVELS - 1
    if domain.log:
        values = [low * (high / low) ** (step / steps) for step in range(steps)]
    else:
        values = [low + (high - low) * step / steps for step in range(steps)]
    values.append(high)  # exactly: rounding must not leave the range
    return tuple(dict.fromkeys(round(value) for value in values)) if domain.integer else tuple(values)
