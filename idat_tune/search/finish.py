"""What came of a search: the winner beside default and adapter alone, its export, the tables."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file

from idat_tune import export, tasks
from idat_tune.config import RunConfig
from idat_tune.journal import COMPLETE, EXPLORE, FAILED, FINAL, STOPPED, Journal, TrialRecord
from idat_tune.search.conductor import trained_file
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import ALONE, DEFAULT, NO_DISTILL, WINNER, Plan

BEST = "best"  # folder of the export


def result(plan: Plan, journal: Journal, manifest: Manifest, tracking_uri: str, seconds: float) -> dict[str, Any]:
    """The outcome of a search as plain values, in the shape that `search --json` prints.

    Accuracies are fractions. `winner` is None where every trial failed.
    """
    explored = journal.of(EXPLORE)
    winner = manifest.winner(journal)
    return {
        "name": plan.name,
        "task": plan.task.name,
        "trials": {status: sum(r.status == status for r in explored) for status in (COMPLETE, STOPPED, FAILED)},
        "ended_by": manifest.content["ended_by"],
        "winner": None if winner is None else {**summary(journal, winner), "confirmed": None},
        "arms": {
            arm: summary(journal, record)
            for arm in (DEFAULT, ALONE, NO_DISTILL)
            if (record := _explored(journal, arm)) is not None
        },
        "verdict": verdict(journal, winner),
        "out": str(plan.folder),
        "best": str(plan.folder / BEST),
        "tracking_uri": tracking_uri,
        "test_openings": len(manifest.test_openings),
        "seconds": seconds,
    }


def summary(journal: Journal, record: TrialRecord) -> dict[str, Any]:
    """A config with what validation and, where it went through the final run, the test split say of it."""
    tested = tests(journal, record)
    return {
        "trial": record.id,
        "config": dict(record.config),
        "status": record.status,
        "val_accuracy": record.val_accuracy,
        "test_accuracy": mean_and_spread(list(tested.values())) if tested else None,
        "trainable_params": record.trainable_params,
    }


def _explored(journal: Journal, arm: str) -> TrialRecord | None:
    return next((record for record in journal.of(EXPLORE) if arm in record.arms), None)


def tests(journal: Journal, explored: TrialRecord) -> dict[int, float]:
    """Test accuracies of an explored config's final runs, by seed; a run that failed is not among them."""
    tested = journal.tested()
    return {r.config["seed"]: tested[r.id][0] for r in _finals(journal, explored) if r.id in tested}


def _finals(journal: Journal, explored: TrialRecord) -> list[TrialRecord]:
    """The final runs of a config: those that differ from it in nothing but the seed."""
    wanted = {**explored.config, "seed": None}
    same = [record for record in journal.of(FINAL) if {**record.config, "seed": None} == wanted]
    return sorted(same, key=lambda record: record.config["seed"])


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
        if found and found["test_accuracy"]:
            metrics[f"{arm}/test_accuracy"] = found["test_accuracy"]["mean"]
    return metrics


def verdict(journal: Journal, winner: TrialRecord | None) -> str:
    """One paragraph on whether tuning and the teacher paid, from differences paired by seed."""
    if winner is None:
        reason = next((record.reason for record in journal.records if record.reason), "none was finished")
        return f"no trial was completed; the first reason: {reason}"
    default, alone = _explored(journal, DEFAULT), _explored(journal, ALONE)
    if default is None or alone is None:
        return "The default was not explored to its end, so there is nothing to compare the winner with."
    if DEFAULT in winner.arms:
        tuned = "No trial beat the default on validation, so the default is the winner."
    else:
        tuned = f"The winner against the default on test: {_gain(journal, winner, default)}."
    if ALONE in default.arms:
        return tuned
    return f"{tuned} The default's teacher against the adapter alone: {_gain(journal, default, alone)}."


def _gain(journal: Journal, ours: TrialRecord, theirs: TrialRecord) -> str:
    accuracies, bases = tests(journal, ours), tests(journal, theirs)
    gains = [100 * (accuracies[seed] - bases[seed]) for seed in accuracies if seed in bases]
    if not gains:
        return "not measured"
    mean = statistics.fmean(gains)
    if len(gains) < 2:
        return f"{mean:+.2f} points (1 seed, so its error is not known)"
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    reliable = "" if abs(mean) > 2 * error else ", which is within the noise: no reliable difference"
    return f"{mean:+.2f} points (± {error:.2f}, {len(gains)} seeds){reliable}"


def export_winner(plan: Plan, journal: Journal, manifest: Manifest) -> bool:
    """Write `best/`: the winner's student of the first seed whose final run was tested; False if none was."""
    tested = journal.tested()
    winner = manifest.winner(journal)
    finals = [] if winner is None else [record for record in _finals(journal, winner) if record.id in tested]
    if winner is None or not finals:
        return False
    record = finals[0]
    over_seeds = mean_and_spread(list(tests(journal, winner).values()))
    metrics = {
        "test_accuracy": tested[record.id][0],
        "test_loss": tested[record.id][1],
        "test_accuracy_mean": over_seeds["mean"],
        "test_accuracy_std": over_seeds["std"],
        "test_seeds": over_seeds["seeds"],
        "trainable_params": record.trainable_params,
        "search": plan.name,
        "trial": record.id,
    }
    state = load_file(trained_file(plan, record.id))
    export.save(plan.folder / BEST, RunConfig.from_flat(record.config), state, metrics)
    return True


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
