"""Every adapter kind alone and with distillation: `python -m benchmarks.kinds > benchmarks/kinds.md`."""

import datetime
import os
import platform
import statistics
import sys
import time

import torch

from idat_tune import data
from idat_tune.config import RunConfig
from idat_tune.kinds import KINDS
from idat_tune.run import evaluate, run, to_device

TASKS = ("digits", "sprites_loc")
SEEDS = (0, 1, 2)
WAYS = {"alone": {"teacher": "none"}, "kl": {"distill.loss": "kl"}, "mse": {"distill.loss": "mse"}}
COMMON = {"adapter.hidden_dim": 8, "optim.lr": 1e-2}
# What differs from COMMON. Of 3e-4, 1e-3 and 3e-3 the middle one was best on val of both tasks where everything trains.
# A low-rank update, a merged or a convolutional branch at the default scale of 0.1 would hardly move.
OWN = {
    "full": {"optim.lr": 1e-3},
    "lora": {"adapter.scale": 1.0},
    "repadapter": {"adapter.scale": 1.0},
    "convpass": {"adapter.scale": 1.0},
}
HEAD = """# Every kind of adapter on the embedded tasks

Printed by `python -m benchmarks.kinds` on {date}: {cores} cores, {gpu}, Python {python}, one thread.

Test accuracy in percent, mean ± standard deviation of {seeds} seeds: glyph_base trained on all 1,000 images for 10
epochs (its teacher is glyph_small, T = 5, lambda = 1), learning rate 1e-2, hidden dimension 8, scale 0.1, tested once
at the end. Exceptions: full has learning rate 1e-3; lora, repadapter and convpass have scale 1. Nothing is tuned per
cell, so this shows that every kind trains and what it costs; which is best for a task is what a search is for.
Trainable parameters are the student's, head included. CPU seconds are of one run, training and test.
"""


def measured(task: str, kind: str, way: str) -> tuple[list[float], float, int]:
    """Test accuracies in percent, one per seed; mean CPU seconds of a run; the student's trainable parameters."""
    train, test = (data.load(task, split, 32, 1) for split in ("trainval", "test"))
    accuracies, began, count = [], time.process_time(), 0
    for seed in SEEDS:
        changes = {**COMMON, "adapter.kind": kind, **OWN.get(kind, {}), **WAYS[way], "seed": seed}
        training = run(RunConfig.for_task(task, changes), train)
        for _ in training:
            pass
        accuracies.append(100 * evaluate(training.student, [to_device(test, training.device)], training.config)[0])
        count = training.student.trainable_params()
    return accuracies, (time.process_time() - began) / len(SEEDS), count


def row(kind: str, task: str) -> str:
    found = {way: measured(task, kind, way) for way in WAYS}
    cells = [f"{statistics.fmean(a):.1f} ± {statistics.stdev(a):.1f}" for a, _, _ in found.values()]
    seconds = [f"{found[way][1]:.1f}" for way in ("alone", "kl")]
    return f"| {kind} | {found['alone'][2]:,} | {' | '.join(cells)} | {' | '.join(seconds)} |"


def main() -> None:
    torch.set_num_threads(1)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    python = ".".join(platform.python_version_tuple()[:2])
    date = datetime.datetime.now(datetime.UTC).date()
    print(HEAD.format(date=date, cores=os.cpu_count(), gpu=gpu, python=python, seeds=len(SEEDS)))
    for task in TASKS:
        print(f"## {task}\n")
        print(f"| kind | trainable | {' | '.join(WAYS)} | CPU s alone | CPU s with teacher |")
        print("|---|" + "---:|" * (len(WAYS) + 3))
        for kind in KINDS:
            print(row(kind, task), flush=True)
            print(task, kind, file=sys.stderr, flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
