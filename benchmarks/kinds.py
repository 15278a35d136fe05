"""Every kind of adapter at its best of a small equal search: `python -m benchmarks.kinds --write benchmarks/kinds.md`.

Finished runs are kept in a folder and not run again; the file is written anew after each kind.
"""

import argparse
import datetime
import statistics
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.kept import Kept
from benchmarks.small_search import Run, against, best, came_to, command, machine, points, told, verdict
from idat_tune import data, space
from idat_tune.config import RunConfig
from idat_tune.engine.resident import Resident
from idat_tune.kinds import KINDS

TASKS = ("sprites_loc", "digits")
SEEDS = (0, 1, 2)
CHOOSING = 100  # the seed of runs that are measured on val, to choose
TRIALS = 8
EPOCHS = 10  # of every run: what a shorter one is best at, a longer one may not bear
WAYS = {"alone": {"teacher": "none"}, "kl": {"teacher": "glyph_small", "distill.loss": "kl"}}
BROKEN = 0.1  # standard deviation of accuracies beyond which some of the runs did not learn
CHOSEN = {"adapter.hidden_dim": "h", "adapter.scale": "scale", "adapter.targets": "targets", "optim.lr": "lr"}
OF_KL = {"distill.temperature": "T", "distill.weight": "lambda"}


class Task:
    """The runs of one task."""

    def __init__(self, name: str, kept: Kept):
        self.name, self.kept = name, kept
        self.resident = Resident(data.load(name, "trainval", 32, 1), torch.device("cpu"))
        self.rows = {"val": torch.arange(len(data.load(name, "train", 32, 1)))}  # what is learnt from, by what is asked
        self.rows["test"] = torch.arange(len(self.resident.labels))
        self.images = {split: data.load(name, split, 32, 1) for split in self.rows}

    def chosen(self, kind: str, way: str) -> dict[str, Any]:
        """The best point on val."""
        searched = space.load("kinds").with_fixed({"adapter.kind": kind, **WAYS[way]})
        tried = points(searched, TRIALS)
        return tried[best([self.came_to("val", point, CHOOSING) for point in tried])]

    def came_to(self, split: str, point: Mapping[str, Any], seed: int) -> Run:
        """Of a run, measured on that split: on test of all other images, on val of those of train."""
        changes = {**point, "epochs": EPOCHS, "seed": seed}

        def measured() -> Run:
            config = RunConfig.for_task(self.name, changes)
            return came_to(config, self.resident, self.rows[split], self.images[split])

        return self.kept([self.name, split, changes], measured)


class Found:
    """What a kind came to on a task, by way."""

    def __init__(self, task: Task, kind: str):
        self.task, self.kind = task.name, kind
        self.points = {way: task.chosen(kind, way) for way in WAYS}
        self.runs = {
            way: {seed: task.came_to("test", point, seed) for seed in SEEDS} for way, point in self.points.items()
        }

    def mean(self, way: str, name: str = "accuracy") -> float:
        return statistics.fmean(run[name] for run in self.runs[way].values())

    def spread(self, way: str) -> float:
        """Standard deviation of the accuracies, a fraction."""
        return statistics.stdev(run["accuracy"] for run in self.runs[way].values())


def row(found: Found, others: Sequence[Found]) -> str:
    """Of the table of a task, of which the others are too."""
    accuracies = {way: [100 * run["accuracy"] for run in runs.values()] for way, runs in found.runs.items()}
    alone, kl = (f"{statistics.fmean(each):.1f} ± {statistics.stdev(each):.1f}" for each in accuracies.values())
    cells = [found.kind, f"{found.mean('alone', 'trainable'):,.0f}", alone, shown(found.points["alone"], CHOSEN)]
    cells += [f"{found.mean('kl', 'trainable'):,.0f}", kl, shown(found.points["kl"], {**CHOSEN, **OF_KL})]
    cells += [told(gain(found, others)), *(f"{found.mean(way, 'seconds'):.1f}" for way in WAYS)]
    return f"| {' | '.join(cells)} |"


def gain(found: Found, others: Sequence[Found]) -> Any:
    """Of a teacher: the difference, paired by seed and image; the others tell how much runs scatter."""
    runs = (each.runs[way] for each in others if each is not found for way in WAYS)
    return against(found.runs["kl"], found.runs["alone"], *runs)


def shown(point: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """What was chosen, in short."""
    values = {name: point[key] for key, name in names.items() if key in point}
    return ", ".join(
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def sentences(found: Sequence[Found]) -> list[str]:
    """What a task's figures say: which kinds are best, and what a teacher did."""
    ranked = sorted(found, key=lambda each: each.mean("alone"), reverse=True)
    first = ", ".join(f"{each.kind} {100 * each.mean('alone'):.1f}" for each in ranked[:5])
    verdicts = {each.kind: verdict(gain(each, found)) for each in found}
    gains, losses = ([kind for kind, each in verdicts.items() if each == sign] for sign in (1, -1))
    # Not the mean: a kind that collapses in one run alone would be all that it tells.
    middle = 100 * statistics.median(each.mean("kl") - each.mean("alone") for each in found)
    named = [f" ({', '.join(kinds)})" if kinds else "" for kinds in (gains, losses)]
    chance = "" if len(found) < 10 else f"; of {len(found)} about one lies beyond its 95 % interval by chance"
    broken = [f"{each.kind} {way}" for each in found for way in WAYS if each.spread(way) > BROKEN]
    collapsed = f"- {found[0].task}: chosen by one run on val, some of the {len(SEEDS)} that are tested collapse with "
    return [
        f"- {found[0].task}: the best alone are {first}.",
        f"- {found[0].task}: over {len(found)} kinds kl gives {middle:+.1f} points in the median; {len(gains)} gain "
        f"reliably{named[0]}, {len(losses)} lose reliably{named[1]}{chance}.",
        *([f"{collapsed}{', '.join(broken)}, so these say nothing of a teacher."] if broken else []),
    ]


HEAD = """# Every kind of adapter at its best on the embedded tasks

{state} Written by `{command}` on {date}: {machine}.

Each kind has the same small search, alone and again with kl: {trials} points of what the space `kinds` has for it
(learning rate, scale, hidden dimension, targets; with kl temperature and lambda too), spread evenly over their ranges,
the same points with and without a teacher as far as both have them. A point is trained on the 800 images of
train with one seed, and the best on the 200 of val is chosen; of that, {seeds} runs on all 1,000 images, each tested
once. Every run has {epochs} epochs. Student glyph_base, teacher glyph_small. So the table compares tuned with tuned,
though by {trials} points each: what a longer search finds may be better, most of all for kinds that have more to
choose.

Test accuracy in percent, mean ± standard deviation of {seeds} seeds. The difference is paired by seed and image, in
points, with its 95 % interval. Trainable parameters are the student's, head included. CPU seconds are of one training;
other work shared the machine.

## What the figures say
"""


def page(found: Mapping[str, Sequence[Found]], state: str) -> str:
    """All that is found, as Markdown."""
    filled = HEAD.format(
        state=state,
        command=command("benchmarks.kinds"),
        date=datetime.datetime.now(datetime.UTC).date(),
        machine=machine(),
        trials=TRIALS,
        epochs=EPOCHS,
        seeds=len(SEEDS),
    )
    lines = ["\n\n".join(textwrap.fill(part, 120, break_on_hyphens=False) for part in filled.split("\n\n"))]
    lines += ["", *(line for each in found.values() if each for line in sentences(each))]
    for task, of_task in found.items():
        names = ("kind", "trainable", "alone", "chosen", "trainable", "kl", "chosen", "kl against alone")
        lines += [f"\n## {task}\n", f"| {' | '.join([*names, 'CPU s alone', 'CPU s with kl'])} |"]
        lines += ["|---|---:|---:|---|---:|---:|---|---|---:|---:|", *(row(each, of_task) for each in of_task)]
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    default = Path(tempfile.gettempdir()) / "idat-kinds"
    arguments.add_argument("--runs", type=Path, default=default, help="folder of finished runs")
    arguments.add_argument("--write", type=Path, required=True, help="file for what the runs came to, in Markdown")
    arguments.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = arguments.parse_args()
    kept = Kept(given.runs / "runs.jsonl")
    found: dict[str, list[Found]] = {}
    for task in (Task(name, kept) for name in given.tasks):
        found[task.name] = []
        for kind in given.kinds:
            found[task.name].append(Found(task, kind))
            print(task.name, kind, round(kept.total("cpu")), "CPU s in all", file=sys.stderr, flush=True)
            given.write.write_text(page(found, "**Partial: kinds or tasks are still missing.**"))
    given.write.write_text(page(found, f"All runs together took {kept.total('cpu'):,.0f} CPU seconds."))


if __name__ == "__main__":
    main()
