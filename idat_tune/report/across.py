"""Settings and costs over tasks: which settings win where, and accuracy against parameters and time."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.report import pictures, published, scales, tables, words
from idat_tune.report.outcomes import BETTER, Outcome, dealt, in_order
from idat_tune.report.page import Html, breakable, html, paragraph, table, tag
from idat_tune.tasks import VTAB

FEW = 8  # values of a setting that have a row each; more lie on an axis
ENOUGH = 4  # tasks, for strips to show more than the table
FULL = 10.0  # millions of parameters above which a published row trains the backbone itself
PER_RUN = ("task", "seed", "device", "precision")  # that a winner does not have of its own


def settings(outcomes: Sequence[Outcome], names: Mapping[str, str]) -> Html:
    """The settings in which a winner differs from its task's default: a strip for each over the gain, and a table."""
    found = [(outcome, in_use(outcome.winner["config"])) for outcome in in_order(outcomes) if outcome.winner]
    keys = [key for key in dict.fromkeys(key for _, used in found for key in used) if _varies(key, found)]
    if not found:
        return Html()
    if not keys:
        return paragraph("The default settings won everywhere.")
    head = ("Task", *map(breakable, keys))
    rows = [(names[outcome.name], *(_cell(key, used, outcome) for key in keys)) for outcome, used in found]
    listed = tag("div", table(head, rows), class_="grid")
    bold = paragraph("The winners' settings; bold where they differ from the task's default.", soft=True)
    if len(found) < ENOUGH:
        return html(bold, listed)
    about = (
        "Each dot is a task, at what its winner has and at what that brought on test over the default: filled where "
        "that is beyond the noise, a ring where it is not or where the default won. Settings that a winner does not "
        "use are left out. Nothing here was varied alone: a setting may stand for others that came with it."
    )
    drawn = [_strip(key, found, names) for key in keys]
    return html(paragraph(about), tag("div", *drawn, class_="strips"), bold, listed)


def in_use(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make a difference to a run; all, where the config is of another version or task."""
    try:
        used = RunConfig.from_flat(config).in_use()
    except BadInput:
        used = dict(config)
    return {key: value for key, value in used.items() if key not in PER_RUN}


def _default(key: str, outcome: Outcome) -> Any:
    arm = outcome.result["arms"].get("default")
    return arm["config"].get(key) if arm else None


def _varies(key: str, found: Sequence[tuple[Outcome, Mapping[str, Any]]]) -> bool:
    return any(key in used and used[key] != _default(key, outcome) for outcome, used in found)


def _cell(key: str, used: Mapping[str, Any], outcome: Outcome) -> Html | str:
    if key not in used:
        return "-"
    shown = words.value(used[key])
    return tag("b", shown) if used[key] != _default(key, outcome) else shown


def _strip(key: str, found: Sequence[tuple[Outcome, Mapping[str, Any]]], names: Mapping[str, str]) -> Html:
    """A setting over what the winner gained."""
    dots, values = [], []
    for outcome, used in found:
        gain = outcome.tuning.found["mean"] if outcome.tuning.found else 0.0 if outcome.default_won else None
        if key in used and gain is not None:
            said = f"{names[outcome.name]}: {words.value(used[key])}, {words.points(gain)} points"
            dots.append((used[key], 100 * gain, said, outcome.tuning.kind == BETTER))
            values.append(used[key])
    if not dots:
        return Html()
    about = "; ".join(said for _, _, said, _ in dots)
    gains = scales.linear([0.0, *(gain for _, gain, _, _ in dots)], least=1.0)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and len(set(values)) > FEW:
        log = min(values) > 0 and max(values) > 10 * min(values)
        across = scales.logarithmic(values) if log else scales.linear(values)
        shown = [pictures.Dot(value, gain, said, "winner", filled) for value, gain, said, filled in dots]
        drawn = pictures.scatter(key, about, shown, across, gains, ("", "points"), 104)
    else:
        choices = [words.value(value) for value in (sorted(set(values)) if numbers else dict.fromkeys(values))]
        turned = [pictures.Dot(gain, words.value(value), said, "winner", filled) for value, gain, said, filled in dots]
        rows = scales.choice(list(dict.fromkeys(choices)))
        drawn = pictures.rows_of_dots(key, about, turned, gains, rows, "points over the default")
    return tag("figure", tag("figcaption", tag("b", key)), drawn)


@dataclass(frozen=True)
class Cost:
    """A contender's means over tasks."""

    name: str
    tone: str
    filled: bool
    accuracy: float  # percent
    params: float | None  # trainable, of the student; None where a task's is not known
    seconds: float | None  # of a final training, times the part of a GPU that it had, where it had one; likewise


def costs(outcomes: Sequence[Outcome]) -> Html:
    """Mean accuracy against parameters, beside the published methods, and against the time of a training.

    All over the same tasks: those of VTAB-1K, if there are any, whose winner was tested.
    """
    inside = [outcome for outcome in outcomes if outcome.group in VTAB]
    sets = dealt(inside or outcomes)
    tested = [{one.task for one in some if one.test("winner")} for some in sets.values()]
    common = set.intersection(*tested)
    if not common:
        return Html()
    kept = {label: [one for one in some if one.task in common] for label, some in sets.items()}
    ours = [_cost(name, some, label) for label, some in kept.items() for name in _whole(some)]
    theirs = [
        pictures.Dot(row.params * 1e3, row.over(common), f"{row.method}: {row.over(common):.2f} %", "plain", False)
        for row in published.TABLE
        if inside and row.params < FULL
    ]
    over = f"mean of {words.plural(len(common), 'task')}, %"
    gpus = all(one.result.get("gpus_per_trial") for some in kept.values() for one in some)
    unit = "GPU-seconds" if gpus else "seconds"
    thousands = [(one, one.params / 1e3) for one in ours if one.params is not None]
    times = [(one, one.seconds) for one in ours if one.seconds is not None]
    marks = [("dot" if one.filled else "ring", one.tone, one.name) for one in ours]
    marks += [("ring", "plain", "published (Table 3)")] if theirs else []
    return html(
        pictures.figure(
            _scatter("Accuracy against parameters", thousands, theirs, ("trained parameters, thousands", over)),
            "",
            pictures.legend(marks),
        ),
        pictures.figure(_scatter("Accuracy against time", times, [], (f"{unit} of a final training", over))),
        paragraph(_note(bool(theirs), [one for some in kept.values() for one in some]), soft=True),
        tag("div", _listed(ours, over, f"{unit} of a training"), class_="grid"),
    )


def _whole(outcomes: Sequence[Outcome]) -> list[str]:
    """The contenders that were tested on all of some tasks."""
    return [name for name in tables.methods(outcomes) if all(one.test(name) for one in outcomes)]


def _cost(name: str, outcomes: Sequence[Outcome], label: str) -> Cost:
    found = [(one, of) for one in outcomes if (of := one.contender(name))]
    params = [of["trainable_params"] for _, of in found]
    each = [(of.get("training_seconds"), one.result.get("gpus_per_trial") or 1.0) for one, of in found]
    shares = [seconds * part for seconds, part in each if seconds is not None]
    return Cost(
        words.called(name) + (f" ({label})" if label else ""),
        words.TONES[name],
        name != "winner_alone",
        100 * statistics.fmean(of["test_accuracy"]["mean"] for _, of in found),
        statistics.fmean(params) if None not in params else None,
        statistics.fmean(shares) if len(shares) == len(found) else None,
    )


def _listed(ours: Sequence[Cost], over: str, seconds: str) -> Html:
    rows = [
        (
            one.name,
            f"{one.accuracy:.2f}",
            "-" if one.params is None else f"{one.params:,.0f}",
            "-" if one.seconds is None else f"{one.seconds:.1f}",
        )
        for one in ours
    ]
    return table(("Contender", over, "parameters", seconds), rows)


def _note(published_too: bool, outcomes: Sequence[Outcome]) -> str:
    said = "Means over the tasks whose winner was tested. Parameters are the student's, which is all that is taken home"
    said += "; iDAT's published rows count the teacher's too, and were selected on test." if published_too else "."
    if published_too:
        said += " FPT, which trains the backbone itself, lies far to the right of the picture."
    left_out = [name for name in tables.methods(outcomes) if not all(one.test(name) for one in outcomes)]
    if left_out:
        said += f" Not tested on all of them: {', '.join(map(words.called, left_out))}."
    return said


def _scatter(name: str, ours: Sequence[tuple[Cost, float]], others: list[pictures.Dot], axes: tuple[str, str]) -> Html:
    if not ours:
        return Html()
    dots = others + [
        pictures.Dot(
            across,
            one.accuracy,
            f"{one.name}: {one.accuracy:.2f} %, {across:,.4g}",
            one.tone,
            one.filled,
            one.name.startswith("the winner"),
        )
        for one, across in ours
    ]
    about = "; ".join(dot.name for dot in dots)
    up = scales.linear([dot.y for dot in dots], least=1.0, ends=(0, 100))
    return pictures.scatter(name, about, dots, scales.logarithmic([dot.x for dot in dots]), up, axes, 240)
