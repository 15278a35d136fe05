"""What came of searches as tables: a row per method over tasks, beside the published ones, or a row per contender."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from idat_tune import tasks
from idat_tune.report import published, words
from idat_tune.report.formats import Cell, Column, Table
from idat_tune.report.outcomes import Outcome, dealt, in_order
from idat_tune.tasks import VTAB

OURS = "idat-tune"
# Of ours, as far as they were tested; whoever is the same as one above on all tasks has no row of its own.
ROWS = ("winner", "winner_with_teacher", "winner_alone", "default", "alone", "no_distill", "linear")
UNTUNED = ("default", "alone", "no_distill")  # of ours
MEANS = "means"  # the group of columns


def of_tasks(outcomes: Sequence[Outcome]) -> Table:
    """Ours and, where a task is one of VTAB-1K, the paper's Table 3: a column per task, then means and parameters.

    Accuracies are percent on test. All 19 tasks have their column as soon as one of them was searched.
    """
    ordered = in_order(outcomes)
    compared = any(outcome.group in VTAB for outcome in ordered)
    columns = {name: (tasks.TASKS[name].title, tasks.TASKS[name].group) for name in published.ORDER if compared}
    columns |= {outcome.task: (outcome.title, outcome.group) for outcome in ordered}
    common = [name for name in published.ORDER if any(o.task == name and o.test("winner") for o in ordered)]
    layout = _Layout(columns, tuple(common) if len(common) < len(published.ORDER) else (), compared)
    rows = [layout.ours(name, one, label) for label, one in dealt(ordered).items() for name in methods(one)]
    rows += [layout.published(row) for row in published.TABLE if compared]
    title = f"Test accuracy on {words.plural(len({outcome.task for outcome in ordered}), 'task')}, percent"
    return Table(title, tuple(_protocol(ordered, compared)), layout.columns, tuple(rows))


def methods(outcomes: Sequence[Outcome]) -> list[str]:
    """Which of ROWS, and which arms that their spaces name, those searches have tested."""
    found: dict[tuple[str | None, ...], str] = {}
    named = dict.fromkeys(name for outcome in outcomes for name in outcome.result["arms"] if name not in words.NAMES)
    for name in (*ROWS, *named):
        trials = tuple(one["trial"] if (one := o.contender(name)) and o.test(name) else None for o in outcomes)
        if any(trials):
            found.setdefault(trials, name)
    return list(found.values())


class _Layout:
    """Which columns there are, and rows that fill them."""

    def __init__(self, shown: Mapping[str, tuple[str, str]], common: tuple[str, ...], compared: bool):
        """`shown`: title and group by task; `common`: those of VTAB-1K that we have, where some lack."""
        self.shown = shown
        self.common = common
        self.averaged = [task for task, (_, group) in shown.items() if group in VTAB or not compared]
        self.groups = [group for group in VTAB if compared]
        per_task = [Column(title, (task, f"{task} std"), group) for task, (title, group) in shown.items()]
        means = [self._mean_column(f"Mean of {words.plural(len(self.averaged), 'task')}", "mean")]
        means += [self._mean_column("Mean of 3 groups", "group mean")] if compared else []
        if common:
            means.append(Column(f"Mean of the same {words.plural(len(common), 'task')}", ("common mean",), MEANS))
        means += [self._mean_column(group.capitalize(), f"{group} mean") for group in self.groups]
        about = (
            Column("Parameters, M", ("parameters M",), MEANS),
            Column("Selected on", ("selected on",), MEANS, number=False),
        )
        self.columns = (Column("Method", ("method",), number=False), *per_task, *means, *about)

    @staticmethod
    def _mean_column(title: str, key: str) -> Column:
        return Column(title, (key, f"{key} over"), MEANS)

    def ours(self, name: str, outcomes: Sequence[Outcome], label: str) -> tuple[Cell, ...]:
        """The row of a contender over tasks."""
        tested = {outcome.task: found for outcome in outcomes if (found := outcome.test(name))}
        params = [found["trainable_params"] for o in outcomes if o.test(name) and (found := o.contender(name))]
        known = [count for count in params if count is not None]
        spreads = {task: None if one["std"] is None else 100 * one["std"] for task, one in tested.items()}
        means = {task: 100 * one["mean"] for task, one in tested.items()}
        return self._row(
            f"{OURS}{f' ({label})' if label else ''}: {words.called(name)}",
            "not tuned" if name in UNTUNED else "validation",
            means,
            spreads,
            statistics.fmean(known) / 1e6 if known else None,
        )

    def published(self, row: published.Published) -> tuple[Cell, ...]:
        """A row of Table 3; its mean over the 19 tasks is the printed one."""
        named = f"{row.method} ({row.venue})" if row.venue else row.method
        return self._row(named, row.selected_on, row.accuracy, {}, row.params, row.mean)

    def _row(
        self,
        name: str,
        selected_on: str,
        means: Mapping[str, float],
        spreads: Mapping[str, float | None],
        params: float | None,
        printed: float | None = None,
    ) -> tuple[Cell, ...]:
        of_tasks = [_accuracy(means.get(task), spreads.get(task)) for task in self.shown]
        members = {group: [task for task, (_, of) in self.shown.items() if of == group] for group in self.groups}
        of_groups = [_mean(means, members[group]) for group in self.groups]
        have = sum(task in means for task in self.averaged)
        averages = [_mean(means, self.averaged) if printed is None else _averaged(printed, have, len(self.averaged))]
        if self.groups:
            found = [value for cell in of_groups if isinstance(value := cell.parts[0], float)]
            whole = statistics.fmean(found) if len(found) == len(self.groups) else None
            averages.append(_averaged(whole, have, len(self.averaged)))
        if self.common:
            same = [means[task] for task in self.common if task in means]
            value = statistics.fmean(same) if len(same) == len(self.common) else None
            averages.append(Cell() if value is None else Cell(f"{value:.2f}", (_kept(value),)))
        count = Cell() if params is None else Cell(millions(params), (_kept(params),))
        return (Cell.of(name), *of_tasks, *averages, *of_groups, count, Cell.of(selected_on))


def millions(count: float) -> str:
    """Parameters in millions: two decimals, or two digits where that is 0."""
    return f"{count:.2f}" if count >= 0.095 else f"{count:.2g}"


def _accuracy(mean: float | None, spread: float | None) -> Cell:
    if mean is None:
        return Cell(parts=(None, None))
    error = "" if spread is None else f" ± {spread:.1f}"
    return Cell(f"{mean:.1f}{error}", (_kept(mean), None if spread is None else _kept(spread)))


def _mean(means: Mapping[str, float], over: Iterable[str]) -> Cell:
    """The mean over those of some tasks that have a figure."""
    asked = list(over)
    values = [means[task] for task in asked if task in means]
    return _averaged(statistics.fmean(values) if values else None, len(values), len(asked))


def _averaged(value: float | None, over: int, of: int) -> Cell:
    """A mean; where tasks lack, with how many it is over."""
    if value is None:
        return Cell(parts=(None, None))
    return Cell(f"{value:.2f}" if over == of else f"{value:.2f} (over {over})", (_kept(value), over))


def _kept(value: float) -> float:
    """A figure as CSV has it: more digits than anybody reads, without those that arithmetic makes up."""
    return round(value, 6)


def _protocol(outcomes: Sequence[Outcome], compared: bool) -> list[str]:
    """How the figures came about, in sentences."""
    said = [f"{OURS}: {protocol(outcomes)}."]
    if compared:
        said.append(f"The other rows: {published.SOURCE}, as printed there; {published.PROTOCOL} (what is chosen on "
                    "test flatters). Two rows compare only as far as their protocols do.")  # fmt: skip
    said.append("Accuracy in percent, ± standard deviation over seeds; a dash where a task was not tested.")
    if compared:
        said.append(
            "Two means: of the 19 tasks, and of the three groups' means, which is points above it; over fewer tasks "
            "they say so."
        )
        said.append("Parameters: ours are the student's, as a mean over tasks; iDAT's rows count the teacher's too.")
    else:
        said.append("Parameters: the student's, as a mean over tasks.")
    return said


def protocol(outcomes: Sequence[Outcome]) -> str:
    """What was done to come to our figures, in a few words."""
    winners = [outcome.winner for outcome in outcomes if outcome.winner]
    split = "selected on validation images"
    if winners and not any(one["confirmed"] for one in winners):
        split += " of one split, unconfirmed"
    elif not all(one["confirmed"] for one in winners):
        split += ", unconfirmed in part"
    seeds = sorted({one["test_accuracy"]["seeds"] for one in winners if one["test_accuracy"]})
    runs = " or ".join([*map(str, seeds[:-1]), words.plural(seeds[-1], "seed")]) if seeds else "no final run"
    students = sorted({str(one["config"]["student"]) for one in winners})
    on = f"student {' or '.join(students)}, " if students else ""
    return f"{on}{split}, {_opened(outcomes)}, {runs}, last epoch"


def _opened(outcomes: Sequence[Outcome]) -> str:
    again = [
        f"{one.result['test_openings']} times on {one.task}" for one in outcomes if one.result["test_openings"] > 1
    ]
    if again:
        return f"test opened {', '.join(again)}" + (", else once" if len(again) < len(outcomes) else "")
    opened = sum(one.result["test_openings"] for one in outcomes)
    if opened < len(outcomes):
        return "test not opened" if not opened else f"test opened once on {opened} of {len(outcomes)}"
    return "test opened once"


def of_task(outcome: Outcome) -> Table:
    """Every contender of a search with its figures, held against the default on test and on the splits."""
    columns = (
        Column("Contender", ("contender",), number=False),
        Column("Trial", ("trial",), number=False),
        Column("Validation", ("validation",)),
        Column("Splits", ("splits", "splits standard error", "splits count")),
        Column("Test", ("test", "test std", "test seeds")),
        *(
            Column(f"{title} minus the default", tuple(f"{split} gain{part}" for part in ("", " low", " high")))
            for title, split in (("Splits", "splits"), ("Test", "test"))
        ),
        Column("Parameters", ("parameters",)),
        Column("Settings", ("settings",), number=False),
    )
    notes = (
        f"{OURS}: {protocol([outcome])}.",
        "Percent: ± standard error over (so many) splits, ± standard deviation over seeds; differences in points with "
        "their 95 % interval. The winner was chosen by the splits, so that its own gain is optimistic there.",
        outcome.result["verdict"],
    )
    rows = tuple(_contender(row) for row in contenders(outcome))
    return Table(f"{outcome.title} (search {outcome.name})", notes, columns, rows)


def contenders(outcome: Outcome) -> list[Mapping[str, Any]]:
    """Those of the result; of a result that has none yet, the winner and the arms."""
    known = outcome.result.get("contenders")
    if known is not None:
        return list(known)
    found = {"winner": outcome.winner, **outcome.result["arms"]}
    rows: dict[str, dict[str, Any]] = {}
    for name, one in found.items():
        if one:
            rows.setdefault(one["trial"], {**one, "names": [], "minus_default": {}})["names"].append(name)
    return list(rows.values())


def _contender(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    names = map(words.called, row["names"])
    splits, test, params = row["confirmed"], row["test_accuracy"], row["trainable_params"]
    val = row["val_accuracy"]
    count = f" ({splits['folds']})" if splits else ""
    return (
        Cell.of(" = ".join(names)),
        Cell.of(row["trial"]),
        Cell(words.accuracy(val), (None if val is None else _kept(100 * val),)),
        Cell(words.on_splits(splits) + count, (*_parts(splits, "mean", "standard_error"), splits and splits["folds"])),
        Cell(words.spread(test), (*_parts(test, "mean", "std"), test and test["seeds"])),
        *(_gain(row["minus_default"].get(split)) for split in ("confirm", "test")),
        Cell() if params is None else Cell(f"{params:,}", (params,)),
        Cell.of(words.brief(row["config"])),
    )


def _parts(found: Mapping[str, Any] | None, *keys: str) -> tuple[float | None, ...]:
    values = [found[key] if found else None for key in keys]
    return tuple(None if value is None else _kept(100 * value) for value in values)


def _gain(found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell(parts=(None, None, None))
    low, high = found["interval"] or (None, None)
    shown = f" ({words.interval(found)})" if found["interval"] else f" ({words.pairs(found)})"
    ends = tuple(None if end is None else _kept(100 * end) for end in (low, high))
    return Cell(words.points(found["mean"]) + shown, (_kept(100 * found["mean"]), *ends))
