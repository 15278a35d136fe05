"""Where tuning and the teacher paid: a forest plot for each of the paper's groups, and what it comes to over tasks."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from idat_tune.report import pictures, words
from idat_tune.report.outcomes import (
    BETTER,
    KEPT,
    MISSING,
    NOISE,
    UNSURE,
    UNTESTED,
    WORSE,
    Effect,
    Outcome,
    by_group,
    in_order,
)
from idat_tune.report.page import Html, html, paragraph, subsection

FEW = 5  # tasks, for which groups would be mostly headings
MARKS = {
    BETTER: ("dot", "winner", "better beyond the noise"),
    WORSE: ("dot", "default", "worse beyond the noise"),
    NOISE: ("dot", "plain", "within the noise"),
    UNSURE: ("ring", "plain", "no interval"),
    KEPT: ("ring", "plain", "no interval"),
}
MEAN = ("dot", "other", "mean over tasks")


@dataclass(frozen=True)
class Whole:
    """What differences come to over several tasks."""

    mean: float  # a fraction
    half_width: float | None  # of its 95 % interval; None where a task has none
    tasks: int


def over(outcomes: Sequence[Outcome], effects: Mapping[str, Effect]) -> Whole | None:
    """The mean difference over tasks; where the default won there is none.

    Its interval takes the tasks as they are, not as a sample of tasks: independent, each as uncertain as its own
    interval says. None where fewer than two were measured, or a task twice, on the same test images.
    """
    known = [(one.task, effects[one.name]) for one in outcomes if effects[one.name].kind in MARKS]
    distinct = {task for task, _ in known}
    if not any(effect.found for _, effect in known) or len(known) != len(distinct) or len(known) < 2:
        return None
    halves = [0.0 if effect.found is None else _half(effect) for _, effect in known]
    mean = statistics.fmean(effect.found["mean"] if effect.found else 0.0 for _, effect in known)
    each = [half for half in halves if half is not None]
    return Whole(mean, math.hypot(*each) / len(known) if len(each) == len(known) else None, len(known))


def _half(effect: Effect) -> float | None:
    """Half the width of an interval."""
    assert effect.found is not None
    ends = effect.found["interval"]
    return None if ends is None else (ends[1] - ends[0]) / 2


def whole(found: Whole) -> str:
    """It in words: `+1.20 points (95 % interval +0.80 to +1.60)`."""
    if found.half_width is None:
        return f"{words.points(found.mean)} points (no interval: too few seeds)"
    return f"{words.points(found.mean)} points (95 % interval {_ends(found)})"


def _ends(found: Whole) -> str:
    assert found.half_width is not None
    return f"{words.points(found.mean - found.half_width)} to {words.points(found.mean + found.half_width)}"


def forests(
    outcomes: Sequence[Outcome],
    effects: Mapping[str, Effect],
    names: Mapping[str, str],
    axis: str,
    whose: bool = False,
) -> Html:
    """A forest plot for each group of tasks, all on one axis, and who is in none of them.

    Args:
        outcomes: of the searches.
        effects: what is shown of each, by search.
        names: of the rows, likewise.
        axis: what the differences are.
        whose: whether rows say whose difference it is.
    """
    shown = [one for one in in_order(outcomes) if effects[one.name].kind in MARKS]
    members = by_group(shown) if len(shown) > FEW else {"": shown}
    groups = {group: [(one, effects[one.name]) for one in some] for group, some in members.items()}
    rows = {group: [_row(names[one.name], effect, whose) for one, effect in found] for group, found in groups.items()}
    for group, found in groups.items():
        mean = over([one for one, _ in found], effects)
        if mean:
            rows[group].append(_mean(mean))
    ends = [end for group in rows.values() for row in group for end in (row.low, row.high, row.mean) if end is not None]
    drawn = [_forest(group, some, axis, ends) for group, some in rows.items()]
    kinds = {effect.kind for found in groups.values() for _, effect in found}
    marks = list(dict.fromkeys(mark for kind, mark in MARKS.items() if kind in kinds))
    marks += [MEAN] if any(row.tone == MEAN[1] for some in rows.values() for row in some) else []
    return html(pictures.legend(marks), *drawn, _others(outcomes, effects, names))


def _forest(group: str, rows: Sequence[pictures.Interval], axis: str, ends: Sequence[float]) -> Html:
    about = "; ".join(f"{row.name}: {row.shown}" for row in rows)
    heading = f"{group.capitalize()} tasks" if group else ""
    drawn = pictures.figure(pictures.forest(f"{heading or 'All tasks'}: {axis}", about, rows, axis, among=ends))
    return subsection(heading, drawn) if heading else drawn


def _row(name: str, effect: Effect, whose: bool) -> pictures.Interval:
    if effect.found is None:
        return pictures.Interval(name, 0.0, None, None, effect.kind, MARKS[effect.kind][1])
    found = effect.found
    low, high = found["interval"] or (None, None)
    shown = f"({words.interval(found)})" if found["interval"] else f"({words.pairs(found)})"
    mark = WHOSE[effect.of] if whose else ""
    return pictures.Interval(
        f"{name}{mark}",
        100 * found["mean"],
        None if low is None else 100 * low,
        None if high is None else 100 * high,
        f"{words.points(found['mean'])} {shown}",
        MARKS[effect.kind][1],
    )


# Marks whose teacher it is, where that is not the winner's own.
WHOSE = {"winner": "", "winner_with_teacher": " †", "default": " ‡", "": ""}


def _mean(found: Whole) -> pictures.Interval:
    ends = None if found.half_width is None else 100 * found.half_width
    shown = words.points(found.mean) if ends is None else f"{words.points(found.mean)} ({_ends(found)})"
    mean = 100 * found.mean
    low, high = (None, None) if ends is None else (mean - ends, mean + ends)
    return pictures.Interval(f"mean of {found.tasks}", mean, low, high, shown, "other")


def _others(outcomes: Sequence[Outcome], effects: Mapping[str, Effect], names: Mapping[str, str]) -> Html:
    """Those that no plot shows, and why."""
    said = []
    for kind in (UNTESTED, MISSING):
        found = [names[one.name] for one in outcomes if effects[one.name].kind == kind]
        said += [f"{kind.capitalize()}: {', '.join(found)}."] if found else []
    return paragraph(" ".join(said), soft=True) if said else Html()
