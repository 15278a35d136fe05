"""Where a value stands on an axis: linear, logarithmic, or one place for each of a few choices."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_TICKS = 5  # on an axis that a phone shows, too


@dataclass(frozen=True)
class Scale:
    """An axis from 0 to 1."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]  # value and what stands there
    log: bool = False
    choices: tuple[str, ...] = ()  # where values are names

    def at(self, value: object) -> float:
        """The place of a value; what lies outside stands at the edge."""
        if self.choices:
            return (self.choices.index(str(value)) + 0.5) / len(self.choices)
        found = float(value)  # type: ignore[arg-type]
        low, high = (math.log(end) if self.log else end for end in (self.low, self.high))
        place = ((math.log(max(found, self.low)) if self.log else found) - low) / (high - low)
        return min(max(place, 0.0), 1.0)


def linear(
    values: Iterable[float], least: float = 1e-9, room: float = 0.04, ends: tuple[float, float] | None = None
) -> Scale:
    """A linear axis over all finite values.

    Args:
        values: that are to be seen.
        least: how wide it is at least.
        room: beside the outermost values, as a part of the width.
        ends: bounds that it does not go beyond, such as (0, 1) of an accuracy.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    wider = max(least - (high - low), 0.0) / 2 + room * max(high - low, least)
    low, high = low - wider, high + wider
    if ends:
        low, high = max(low, ends[0]), min(high, ends[1])
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return Scale(low, high, _labelled(_round_steps(low, high)))


def logarithmic(values: Iterable[float]) -> Scale:
    """A logarithmic axis over all values above 0."""
    known = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    low, high = min(known) / 1.15, max(known) * 1.15
    for steps in ((1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) <= MOST_TICKS:
            break
    if len(ticks) < 2:  # less than a decade, and no round number of one in it
        ticks = _round_steps(low, high)
    return Scale(low, high, _labelled(ticks[:: math.ceil(len(ticks) / MOST_TICKS)]), log=True)


def choice(values: Sequence[str]) -> Scale:
    """A place for each name, in this order."""
    return Scale(0.0, 1.0, tuple((index, name) for index, name in enumerate(values)), choices=tuple(values))


def _round_steps(low: float, high: float) -> list[float]:
    """Round numbers between two ends, few enough for an axis."""
    raw = (high - low) / MOST_TICKS
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(
        unit * factor for factor in (1, 2, 2.5, 5, 10, 20) if (high - low) / (unit * factor) <= MOST_TICKS - 0.5
    )
    first = math.ceil(low / step - 1e-9)
    return [round(count * step, 12) for count in range(first, math.floor(high / step + 1e-9) + 1)]


def _labelled(ticks: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """Ticks with as few digits as tell them apart."""
    for digits in range(1, 17):
        labels = [_short(tick, digits) for tick in ticks]
        if len(set(labels)) == len(ticks) and all(
            abs(float(one) - tick) <= 1e-9 * abs(tick) for one, tick in zip(labels, ticks, strict=True)
        ):
            break
    return tuple(zip(ticks, labels, strict=True))


def _short(value: float, digits: int) -> str:
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
