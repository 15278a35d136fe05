"""What came of a search: the winner beside default and adapter alone, its export, the tables."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file

from idat_tune import export
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
        "winner": None if winner is None else {**summary(journal, WINNER, winner), "confirmed": None},
        "arms": {
            arm: summary(journal, arm, record)
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


def summary(journal: Journal, arm: str, record: TrialRecord) -> dict[str, Any]:
    """A config with what validation and, where it went through the final run, the test split say of it."""
    tested = tests(journal, arm)
    return {
        "trial": record.id,
        "config": dict(record.config),
        "status": record.status,
        "val_accuracy": record.last.val_accuracy if record.last else None,
        "test_accuracy": mean_and_spread(tested) if tested else None,
        "trainable_params": record.trainable_params,
    }


def _explored(journal: Journal, arm: str) -> TrialRecord | None:
    return next((record for record in journal.of(EXPLORE) if arm in record.arms), None)


def tests(journal: Journal, arm: str) -> list[float]:
    """Test accuracies of an arm's final runs, by seed."""
    return [r.test_accuracy for r in journal.of(FINAL) if arm in r.arms and r.test_accuracy is not None]


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
    if DEFAULT in winner.arms:
        tuned = "No trial beat the default on validation, so the default is the winner."
    else:
        tuned = f"The winner against the default on test: {_gain(journal, WINNER, DEFAULT)}."
    default = _explored(journal, DEFAULT)
    if default is None or RunConfig.from_flat(default.config).alone:
        return tuned
    return f"{tuned} The default's teacher against the adapter alone: {_gain(journal, DEFAULT, ALONE)}."


def _gain(journal: Journal, arm: str, base: str) -> str:
    pairs = list(zip(tests(journal, arm), tests(journal, base), strict=False))
    if not pairs:
        return "not measured"
    gains = [100 * (ours - theirs) for ours, theirs in pairs]
    mean = statistics.fmean(gains)
    if len(gains) < 2:
        return f"{mean:+.1f} points (1 seed, so its error is not known)"
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    reliable = "" if abs(mean) > 2 * error else ", which is within the noise: no reliable difference"
    return f"{mean:+.1f} points (± {error:.1f}, {len(gains)} seeds){reliable}"


def export_winner(plan: Plan, journal: Journal) -> bool:
    """Write `best/`: the winner's student of the first seed whose final run succeeded; False if none did."""
    record = next((r for r in journal.of(FINAL) if WINNER in r.arms and r.status == COMPLETE), None)
    if record is None:
        return False
    tested = mean_and_spread(tests(journal, WINNER))
    metrics = {
        "test_accuracy": record.test_accuracy,
        "test_loss": record.test_loss,
        "test_accuracy_mean": tested["mean"],
        "test_accuracy_std": tested["std"],
        "test_seeds": tested["seeds"],
        "trainable_params": record.trainable_params,
        "search": plan.name,
        "trial": record.id,
    }
    state = load_file(trained_file(plan, record.id))
    export.save(plan.folder / BEST, RunConfig.from_flat(record.config), state, metrics)
    return True
