"""What came of a search: the winner beside default and adapter alone, its export, the tables."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safetensors.torch import load_file

from idat_tune import export, tasks
from idat_tune.config import RunConfig
from idat_tune.journal import COMPLETE, EXPLORE, FAILED, STOPPED, Journal
from idat_tune.report import task as report
from idat_tune.search.handover import figures, protocol
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import ALONE, DEFAULT, LINEAR, WINNER, Plan
from idat_tune.search.stages import winner
from idat_tune.search.trained import is_kept, trained_file
from idat_tune.search.verdict import Findings
from idat_tune.space import TAKEN

BEST = "best"  # folder of the export


def result(plan: Plan, journal: Journal, tracking_uri: str, seconds: float) -> dict[str, Any]:
    """The outcome of a search as plain values, in the shape that `search --json` prints.

    Accuracies and their differences are fractions. `winner` is None where every trial failed.
    """
    explored = [record for record in journal.of(EXPLORE) if LINEAR not in record.arms]  # which are no trials
    found = Findings(plan, journal, winner(plan, journal), journal.state.stacked == 1)
    outcome = {
        "task": plan.task.name,
        "trials": {status: sum(r.status == status for r in explored) for status in (COMPLETE, STOPPED, FAILED)},
        "ended_by": journal.state.ended_by,
        "winner": found.winner and found.summary(found.winner),
        "arms": {arm: found.summary(record) for arm, record in found.named.items() if arm != WINNER},
        "contenders": found.contenders(),
        "comparisons": [comparison.as_dict() for comparison in found.comparisons()],
        "smallest": found.smallest(),
        "teacher_cost": found.teacher_cost(),
        "together": found.together(),
        "verdict": found.verdict(),
        "test_openings": len(journal.state.openings),
        "gpus_per_trial": journal.state.gpus_per_trial,
        "seconds": seconds,
    }
    return placed(outcome, plan, tracking_uri)


def export_winner(plan: Plan, journal: Journal, manifest: Manifest) -> bool:
    """Write `best/`: the winner's student of the first seed whose final run was tested.

    False if none was, or if its tensors are gone, as where they were lost and training them again failed.
    """
    chosen = winner(plan, journal)
    found = Findings(plan, journal, chosen, journal.state.stacked == 1)
    record = found.exported()
    if chosen is None or record is None or not is_kept(trained_file(plan, record.id)):
        return False
    tested = [final for final in found.finals(chosen) if final.id in journal.tested()]
    metrics, how = figures(found, chosen, tested), protocol(found, chosen)
    state = load_file(trained_file(plan, record.id))
    config, trained_with = RunConfig.from_flat(record.config), manifest.content["weights"]
    export.save(plan.folder / BEST, config, state, metrics, trained_with, protocol=how)
    return True


def write_page(
    plan: Plan, journal: Journal, manifest: Manifest, result: Mapping[str, Any], tell: Callable[[str], None]
) -> None:
    """Write report.html; a failure is told, and fails nothing: the page can be made again at any time."""
    try:
        report.write(plan.folder, manifest.content, journal, result)
    except Exception as failure:
        why = f"{type(failure).__name__}: {failure}".splitlines()[0]
        tell(f"{report.FILE} could not be written ({why}); `idat-tune report {plan.name}` tries it again")


NOT_KEPT = ("name", "out", "best", "tracking_uri", "finished")  # of a result: what changes with its folder or session


def kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as the journal keeps it, which holds wherever its folder is."""
    return {key: value for key, value in result.items() if key not in NOT_KEPT}


def placed(result: Mapping[str, Any], plan: Plan, tracking_uri: str, finished: bool = True) -> dict[str, Any]:
    """A kept result with its name and paths as they are now, and whether nothing is left for the same command to do."""
    now = (plan.name, str(plan.folder), str(plan.folder / BEST), tracking_uri, finished)
    return {**result, **dict(zip(NOT_KEPT, now, strict=True))}


def overview(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One table over several tasks: a row each, then the means of every group, of the groups, and of all tasks.

    Papers print either of the last two, and they differ by points; both are named. A mean is None unless every task
    in it has the figure. Arms that the space names have a column each. Accuracies are fractions.
    """
    named = dict.fromkeys(arm for result in results for arm in result["arms"] if arm not in TAKEN)
    rows = [_task_row(result, [*named]) for result in results]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    means = [_mean_row(f"{group} mean", group, [row for row in rows if row["group"] == group]) for group in groups]
    return [*rows, *means, _mean_row("group mean", "", means), _mean_row("overall mean", "", rows)]


def _task_row(result: Mapping[str, Any], named: Sequence[str]) -> dict[str, Any]:
    def test(found: Mapping[str, Any] | None) -> float | None:
        return found["test_accuracy"]["mean"] if found and found["test_accuracy"] else None

    return {
        "row": result["task"],
        "group": tasks.get(result["task"]).group,
        "winner_val": result["winner"] and result["winner"]["val_accuracy"],
        "winner_test": test(result["winner"]),
        "default_test": test(result["arms"].get(DEFAULT)),
        "alone_test": test(result["arms"].get(ALONE)),
        **{f"{arm}_test": test(result["arms"].get(arm)) for arm in named},
        "search": result["name"],
    }


def _mean_row(name: str, group: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means = {}
    for figure in (name for name in rows[0] if name.endswith(("_val", "_test"))):
        values = [row[figure] for row in rows]
        means[figure] = None if None in values else statistics.fmean(values)
    return {"row": name, "group": group, **means, "search": None}
