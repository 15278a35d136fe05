"""Ways to distil, and two models at inference, on the embedded tasks: `python -m benchmarks.distillation`.

Prints the tables of `distillation.md`. Finished runs are kept in a folder and not run again.
"""

# R seeds, N images, C classes

import argparse
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kept import Kept
from idat_tune import data
from idat_tune.config import RunConfig
from idat_tune.engine.resident import Resident
from idat_tune.run import evaluate_all, run_on, to_device

TASKS = ("digits", "sprites_loc", "sprites_ori")
SEEDS = range(10)
CHOOSING = range(100, 110)  # seeds that choose lambda, each with a split of its own
VAL = 200  # of the 1,000 training images
RAMP = 5  # of 10 epochs

COMMON = {"adapter.kind": "sequential", "adapter.hidden_dim": 8, "optim.lr": 1e-2}
ALONE = {"teacher": "none"}
SQUARED = {"distill.square_temperature": True}
STANDARDISED = {"distill.standardise": True, "distill.temperature": 2.0}
APART: dict[str, dict[str, Any]] = {
    "alone": ALONE,
    "glyph_small alone": {**ALONE, "student": "glyph_small"},
    "alone, label smoothing 0.1": {**ALONE, "optim.label_smoothing": 0.1},
}
JOINT: dict[str, dict[str, Any]] = {
    "kl": {},
    "kl, T²": SQUARED,
    "kl, T², lambda chosen": SQUARED,
    "kl standardised": STANDARDISED,
    "kl standardised, lambda chosen": STANDARDISED,
    "kl standardised, lambda chosen, ramp": {**STANDARDISED, "distill.ramp_epochs": RAMP},
    "mse": {"distill.loss": "mse"},
    "mse, lambda chosen": {"distill.loss": "mse"},
    "kl, target mean": {"distill.target": "mean"},
}
# Chosen without a ramp where there is one.
RANGES = {
    "kl, T², lambda chosen": (0.03, 0.1, 0.3, 1.0, 3.0),
    "kl standardised, lambda chosen": (0.03, 0.1, 0.3, 1.0, 3.0),
    "kl standardised, lambda chosen, ramp": (0.03, 0.1, 0.3, 1.0, 3.0),
    "mse, lambda chosen": (0.03, 0.1, 0.3, 1.0),
}
LONG: dict[str, dict[str, Any]] = {
    "alone": ALONE,
    "alone, label smoothing 0.1": APART["alone, label smoothing 0.1"],
    **{f"kl standardised, lambda {weight:g}": {**STANDARDISED, "distill.weight": weight} for weight in (0.1, 1.0)},
}


class Runs:
    """Runs of one task; what is finished is read from the folder."""

    def __init__(self, task: str, folder: Path):
        self.task = task
        self.kept, self.logits = Kept(folder / "runs.jsonl"), folder / "logits"
        self.logits.mkdir(exist_ok=True)
        self.resident = Resident(data.load(task, "trainval", 32, 1), torch.device("cpu"))
        test = data.load(task, "test", 32, 1)
        self.labels_N, self.test = np.asarray(test.labels), to_device(test, self.resident.device)

    def chosen(self, name: str) -> tuple[float, dict[float, float]]:
        """The lambda of the best mean on val, and all means; the smaller of two that are as good."""
        changes = {key: value for key, value in JOINT[name].items() if key != "distill.ramp_epochs"}
        means = {
            weight: statistics.fmean(self.on_val({**changes, "distill.weight": weight}, seed) for seed in CHOOSING)
            for weight in RANGES[name]
        }
        return max(means, key=lambda weight: means[weight]), means

    def on_val(self, changes: dict[str, Any], seed: int) -> float:
        """Accuracy of the last epoch on 200 of the training images, after learning from the 800 others."""

        def measured(config: RunConfig) -> dict[str, Any]:
            rows = torch.randperm(len(self.resident.labels), generator=torch.Generator().manual_seed(seed))
            epochs = list(run_on(self.resident, config, rows[VAL:], rows[:VAL]))
            return {"accuracy": epochs[-1].val_accuracy}

        return float(self._kept("val", changes, seed, measured)["accuracy"])

    def on_test(self, changes: dict[str, Any], seed: int) -> dict[str, Any]:
        """CPU seconds, and the name of the file with the logits of student and teacher."""

        def measured(config: RunConfig) -> dict[str, Any]:
            began = time.process_time()
            training = run_on(self.resident, config, torch.arange(len(self.resident.labels)), torch.arange(0))
            for _ in training:
                pass
            models = {"student": training.student, "teacher": training.teacher}
            found, _ = evaluate_all({k: (m, config) for k, m in models.items() if m is not None}, [self.test])
            name = f"{len(list(self.logits.iterdir()))}.npz"
            logits: dict[str, Any] = {role: each.logits.numpy() for role, each in found.items()}
            np.savez(self.logits / name, **logits)
            return {"seconds": time.process_time() - began, "logits": name}

        return self._kept("test", changes, seed, measured)

    def _kept(
        self, split: str, changes: dict[str, Any], seed: int, measured: Callable[[RunConfig], dict[str, Any]]
    ) -> dict[str, Any]:
        changes = {**COMMON, **changes, "seed": seed}
        return self.kept([self.task, split, changes], lambda: measured(RunConfig.for_task(self.task, changes)))


@dataclass
class Arm:
    """A way to train on one task: of every seed, the softmaxes (R, N, C) on the test images."""

    student: np.ndarray
    teacher: np.ndarray | None
    seconds: float  # of a run

    @classmethod
    def of(cls, runs: Runs, changes: dict[str, Any]) -> "Arm":
        found = [runs.on_test(changes, seed) for seed in SEEDS]
        files = [np.load(runs.logits / each["logits"]) for each in found]
        student, teacher = (
            np.stack([softmax(file[role]) for file in files]) if role in files[0] else None
            for role in ("student", "teacher")
        )
        assert student is not None
        return cls(student, teacher, statistics.fmean(each["seconds"] for each in found))


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    return torch.tensor(logits_NC).double().softmax(dim=-1).numpy()


@dataclass
class Row:
    """Hits of a classifier made of one or two seeds each: for every image, the mean over some of the seeds."""

    seeds: Sequence[tuple[int, ...]]
    hits: np.ndarray  # (len(seeds), N)

    @classmethod
    def of_one(cls, softmaxes_RNC: np.ndarray, labels_N: np.ndarray) -> "Row":
        return cls([(seed,) for seed in range(len(softmaxes_RNC))], softmaxes_RNC.argmax(-1) == labels_N)

    @classmethod
    def of_two(cls, softmaxes_RNC: np.ndarray, labels_N: np.ndarray) -> "Row":
        """The mean of two models' softmaxes, for all pairs of seeds."""
        pairs = list(itertools.combinations(range(len(softmaxes_RNC)), 2))
        both = (softmaxes_RNC[one] + softmaxes_RNC[other] for one, other in pairs)
        return cls(pairs, np.stack([each.argmax(-1) == labels_N for each in both]))

    def without(self, seed: int | None = None) -> np.ndarray:
        """(N,) over all that do not use the seed."""
        mean: np.ndarray = self.hits[[seed not in used for used in self.seeds]].mean(axis=0)
        return mean


def difference(ours: Row, theirs: Row) -> tuple[float, float, float]:
    """In points: ours minus theirs; its standard error over seeds; over seeds and test images.

    Paired by seed and image. The jackknife over seeds is the usual error where a row has one seed per classifier, and
    holds where two share a seed. To it comes, as in `differences`, the part of images that seeds do not explain.
    """
    whole_N = ours.without() - theirs.without()
    count, images = len(SEEDS), len(whole_N)
    left_RN = np.stack([ours.without(seed) - theirs.without(seed) for seed in range(count)])
    left_R = left_RN.mean(axis=1)
    of_seeds = (count - 1) / count * ((left_R - left_R.mean()) ** 2).sum()
    rest_RN = left_RN - left_R[:, None] - left_RN.mean(axis=0) + left_R.mean()
    explained = (count - 1) / count * (rest_RN**2).sum() / (images - 1)
    of_images = max(whole_N.var(ddof=1) - explained, 0.0) / images
    return 100 * whole_N.mean(), 100 * of_seeds**0.5, 100 * (of_seeds + of_images) ** 0.5


@dataclass
class Found:
    """What one task came to."""

    arms: dict[str, Arm]
    labels: np.ndarray  # (N,)
    chosen: dict[str, tuple[float, dict[float, float]]] = field(default_factory=dict)
    alone_on_val: float = math.nan

    def student(self, name: str) -> Row:
        return Row.of_one(self.arms[name].student, self.labels)

    def teacher(self, name: str) -> Row:
        teacher = self.arms[name].teacher
        assert teacher is not None
        return Row.of_one(teacher, self.labels)

    def both(self, name: str) -> Row:
        """Student and teacher of a joint run; glyph_base and glyph_small trained apart where it is alone."""
        other = self.arms["glyph_small alone"].student if name == "alone" else self.arms[name].teacher
        return Row.of_one(self.arms[name].student + other, self.labels)

    def twice(self, name: str) -> Row:
        return Row.of_two(self.arms[name].student, self.labels)


def measure(task: str, folder: Path) -> Found:
    runs = Runs(task, folder)
    arms, chosen = {}, {}
    for name, changes in {**APART, **JOINT}.items():
        if name in RANGES:
            chosen[name] = runs.chosen(name)
            changes = {**changes, "distill.weight": chosen[name][0]}
        arms[name] = Arm.of(runs, changes)
    return Found(arms, runs.labels_N, chosen, statistics.fmean(runs.on_val(ALONE, seed) for seed in CHOOSING))


def measure_long(task: str, folder: Path) -> Found:
    """With three times the epochs, at fixed values of lambda."""
    runs = Runs(task, folder)
    arms = {name: Arm.of(runs, {**changes, "epochs": 30}) for name, changes in LONG.items()}
    return Found(arms, runs.labels_N)


def cells(found: dict[str, Found], ours: Callable[[Found], Row], theirs: Callable[[Found], Row]) -> Iterator[str]:
    """For each task: accuracy, and the difference with both its errors."""
    for each in found.values():
        one, other = ours(each), theirs(each)
        mean, of_seeds, of_both = difference(one, other)
        same = np.array_equal(one.hits, other.hits)
        yield f"{100 * one.hits.mean():.1f}" + ("" if same else f", {mean:+.1f} ± {of_both:.1f} ({of_seeds:.1f})")


def told(weight: float, means: dict[float, float]) -> str:
    return f"{weight:g} ({', '.join(f'{each:g}: {100 * mean:.1f}' for each, mean in means.items())})"


def table(head: str, rows: dict[str, list[str]], columns: Sequence[str] = TASKS) -> None:
    print(f"\n| {head} | {' | '.join(columns)} |")
    print("|---|" + "---|" * len(columns))
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(row)} |")


def main() -> None:
    """Measure what is not measured yet, and print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    default = Path(tempfile.gettempdir()) / "idat-distillation"
    arguments.add_argument("--runs", type=Path, default=default, help="folder of finished runs")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    found = {task: measure(task, given.runs) for task in TASKS}

    alone = methodcaller("student", "alone")
    rows = {name: [told(*each.chosen[name]) for each in found.values()] for name in RANGES if "ramp" not in name}
    rows = {"alone, for comparison": [f"{100 * each.alone_on_val:.1f}" for each in found.values()], **rows}
    table("lambda chosen (lambda: accuracy on val)", rows)
    rows = {}
    for name in [*APART, *JOINT]:
        seconds = statistics.fmean(each.arms[name].seconds for each in found.values())
        rows[name] = [*cells(found, methodcaller("student", name), alone), f"{seconds:.1f}"]
    table("one model at inference", rows, [*TASKS, "CPU s per run"])
    small = methodcaller("student", "glyph_small alone")
    rows = {name: list(cells(found, methodcaller("teacher", name), small)) for name in JOINT}
    table("the teacher, against glyph_small alone", rows)
    controls = {"alone, two seeds": methodcaller("twice", "alone"), "pair trained apart": methodcaller("both", "alone")}
    rows = {name: list(cells(found, control, alone)) for name, control in controls.items()}
    for name in JOINT:
        rows[f"{name}: student + teacher"] = list(cells(found, methodcaller("both", name), alone))
        rows[f"{name}: two students"] = list(cells(found, methodcaller("twice", name), alone))
    table("two models at inference, against one alone", rows)
    rows = {}
    for name in JOINT:
        for control, theirs in controls.items():
            rows[f"{name}, against {control}"] = list(cells(found, methodcaller("both", name), theirs))
    table("student + teacher, against two models without distillation", rows)
    found = {task: measure_long(task, given.runs) for task in TASKS}
    rows = {name: list(cells(found, methodcaller("student", name), alone)) for name in LONG}
    table("one model at inference, 30 epochs", rows)


if __name__ == "__main__":
    main()
