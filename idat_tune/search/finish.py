"""What came of a search: the winner beside default and adapter alone, its export, the tables."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file

from idat_tune import export, tasks
from idat_tune.config import RunConfig
from idat_tune.journal import COMPLETE, EXPLORE, FAILED, STOPPED, Journal, TrialRecord
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import ALONE, DEFAULT, WINNER, Plan
from idat_tune.search.stages import winner
from idat_tune.search.trained import trained_file
from idat_tune.search.verdict import Findings

BEST = "best"  # folder of the export


def result(plan: Plan, journal: Journal, tracking_uri: str, seconds: float) -> dict[str, Any]:
    """The outcome of a search as plain values, in the shape that `search --json` prints.

    Accuracies and their differences are fractions. `winner` is None where every trial failed.
    """
    explored = journal.of(EXPLORE)
    found = Findings(plan, journal, winner(plan, journal), journal.state.stacked == 1)
    outcome = {
        "task": plan.task.name,
        "trials": {status: sum(r.status == status for r in explored) for status in (COMPLETE, STOPPED, FAILED)},
        "ended_by": journal.state.ended_by,
        "winner": found.winner and summary(found, found.winner),
        "arms": {arm: summary(found, record) for arm, record in found.named.items() if arm != WINNER},
        "comparisons": [comparison.as_dict() for comparison in found.comparisons()],
        "teacher_cost": found.teacher_cost(),
        "verdict": found.verdict(),
        "test_openings": len(journal.state.openings),
        "seconds": seconds,
    }
    return placed(outcome, plan, tracking_uri)


def summary(found: Findings, record: TrialRecord) -> dict[str, Any]:
    """A config with what validation, the confirm stage and, where it went through the final run, the test say of it.

    The validation accuracy of a winner's twin, which was not explored, is that of its first split.
    """
    tested = found.tests(record)
    return {
        "trial": record.id,
        "config": dict(record.config),
        "status": record.status,
        "val_accuracy": record.val_accuracy,
        "confirmed": found.confirmed(record),
        "test_accuracy": mean_and_spread(list(tested.values())) if tested else None,
        "trainable_params": record.trainable_params,
    }


def mean_and_spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of a final run."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "seeds": len(values)}


def tracked_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """A result's accuracies under the names that tracking uses on the parent run."""
    named = {WINNER: result["winner"], **result["arms"]}
    metrics = {}
    for arm, found in named.items():
        if found and found["val_accuracy"] is not None:
            metrics[f"{arm}/val_accuracy"] = found["val_accuracy"]
        if found and found["confirmed"]:
            metrics[f"{arm}/confirmed_accuracy"] = found["confirmed"]["mean"]
        if found and found["test_accuracy"]:
            metrics[f"{arm}/test_accuracy"] = found["test_accuracy"]["mean"]
    return metrics


def export_winner(plan: Plan, journal: Journal, manifest: Manifest) -> bool:
    """Write `best/`: the winner's student of the first seed whose final run was tested; False if none was."""
    tested = journal.tested()
    chosen = winner(plan, journal)
    found = Findings(plan, journal, chosen)
    record = found.exported()
    if chosen is None or record is None:
        return False
    over_seeds = mean_and_spread(list(found.tests(chosen).values()))
    confirmed = found.confirmed(chosen)
    metrics = {
        "test_accuracy": tested[record.id][0],
        "test_loss": tested[record.id][1],
        "test_accuracy_mean": over_seeds["mean"],
        "test_accuracy_std": over_seeds["std"],
        "test_seeds": over_seeds["seeds"],
        **({"confirmed_accuracy": confirmed["mean"], "confirmed_folds": confirmed["folds"]} if confirmed else {}),
        "trainable_params": record.trainable_params,
        "search": plan.name,
        "trial": chosen.id,
        # Its figures are those of the first time, by the same config and seed.
        **({"trained_again": True} if record.id in journal.state.trained_again else {}),
    }
    state = load_file(trained_file(plan, record.id))
    export.save(plan.folder / BEST, RunConfig.from_flat(record.config), state, metrics, manifest.content["weights"])
    return True


PLACES = ("name", "out", "best", "tracking_uri")  # of a result: all that changes when its folder is moved


def kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as the journal keeps it, which holds wherever its folder is."""
    return {key: value for key, value in result.items() if key not in PLACES}


def placed(result: Mapping[str, Any], plan: Plan, tracking_uri: str) -> dict[str, Any]:
    """A kept result with its name and paths as they are now."""
    places = (plan.name, str(plan.folder), str(plan.folder / BEST), tracking_uri)
    return {**result, **dict(zip(PLACES, places, strict=True))}


def overview(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One table over several tasks: a row each, then the means of every group, of the groups, and of all tasks.

    Papers print either of the last two, and they differ by points; both are named. A mean is None unless every task
    in it has the figure. Accuracies are fractions.
    """
    rows = [_task_row(result) for result in results]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    means = [_mean_row(f"{group} mean", group, [row for row in rows if row["group"] == group]) for group in groups]
    return [*rows, *means, _mean_row("group mean", "", means), _mean_row("overall mean", "", rows)]


FIGURES = ("winner_val", "winner_test", "default_test", "alone_test")


def _task_row(result: Mapping[str, Any]) -> dict[str, Any]:
    def test(found: Mapping[str, Any] | None) -> float | None:
        return found["test_accuracy"]["mean"] if found and found["test_accuracy"] else None

    return {
        "row": result["task"],
        "group": tasks.get(result["task"]).group,
        "winner_val": result["winner"] and result["winner"]["val_accuracy"],
        "winner_test": test(result["winner"]),
        "default_test": test(result["arms"].get(DEFAULT)),
        "alone_test": test(result["arms"].get(ALONE)),
        "search": result["name"],
    }


def _mean_row(name: str, group: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means = {}
    for figure in FIGURES:
        values = [row[figure] for row in rows]
        means[figure] = None if None in values else statistics.fmean(values)
    return {"row": name, "group": group, **means, "search": None}
