"""Records learning curves of many configs on the embedded tasks: `python -m benchmarks.record`.

A benchmark, made outside any search: it reads the test split after each run, which a search never does. Out comes the
table on which `idat-tune bench` replays searches. Runs are kept as they end, and a rerun goes on; `--configs`
may grow later, since the first points stay the same ones.
"""

import argparse
import datetime
import json
import math
import os
import platform
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from idat_tune import data, space
from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.errors import Diverged
from idat_tune.replay import table
from idat_tune.replay.processes import mapping
from idat_tune.replay.table import RecordedRun
from idat_tune.run import evaluate, run, to_device
from idat_tune.search.config import SearchConfig
from idat_tune.search.plan import Plan
from idat_tune.space import Choice, Domain, Space

TASKS = ("digits", "sprites_loc")
SPACE = "embedded"
CONFIGS = 200  # random points of the space, beside the arms
PASSES = ((0, 1, 2), (3, 4))  # folds: a recording that is cut short has three of each config before five of any


@dataclass(frozen=True)
class Wanted:
    """A run to record."""

    task: str
    config: str
    fold: int
    changes: dict[str, Any]  # of the task's defaults


def points(searched: Space, count: int) -> list[dict[str, Any]]:
    """Random points of a space, always the same ones, whatever their number."""
    chooser = random.Random(0)

    def ask(label: str, domain: Domain) -> Any:
        if isinstance(domain, Choice):
            return chooser.choice(domain.values)
        assert not domain.integer, f"{label}: no space here has whole numbers"
        if domain.log:
            return math.exp(chooser.uniform(math.log(domain.low), math.log(domain.high)))
        return chooser.uniform(domain.low, domain.high)

    return [searched.propose(ask) for _ in range(count)]


def arms(task: str, searched: Space) -> dict[str, dict[str, Any]]:
    """The arms of a search as changes of the task's defaults, by name."""
    plan = Plan.checked(SearchConfig.of(task, name="recording", space=searched))
    return {arm: config.flat() for arm, config in plan.arms().items()}


def wanted(configs: int) -> Iterator[Wanted]:
    """All runs, in the order in which a partial recording serves best."""
    searched = space.load(SPACE)
    drawn = {f"random-{number:03d}": point for number, point in enumerate(points(searched, configs))}
    per_task = {task: {**arms(task, searched), **drawn} for task in TASKS}
    for folds in PASSES:
        for config in per_task[TASKS[0]]:
            for task in TASKS:
                for fold in folds:
                    yield Wanted(task, config, fold, per_task[task][config])


def active(config: RunConfig, searched: Space) -> dict[str, Any]:
    """The keys of the space that matter for a config, with its values."""
    flat = config.flat()
    keys = {param.label: param.key for param in searched.params}
    point = searched.propose(lambda label, domain: flat[keys[label]])
    return {key: value for key, value in point.items() if key not in dict(searched.fixed)}


@cache
def images(task: str, split: str) -> Images:
    return data.load(task, split, 32, 1)


def recorded(job: Wanted) -> RecordedRun:
    """Carry out a run: trained on one fold, measured on the rest after every epoch, tested after the last."""
    torch.set_num_threads(1)
    config = RunConfig.for_task(job.task, {**job.changes, "seed": job.fold})
    train, val = data.fold(images(job.task, "train"), images(job.task, "val"), job.fold)
    assert len(val) == table.VAL_IMAGES
    epochs, tested = [], (None, None)
    began = time.process_time()
    training = run(config, train, val)
    try:
        epochs.extend(training)
        seconds = time.process_time() - began
        tested = evaluate(training.student, [to_device(images(job.task, "test"), training.device)], config)
    except Diverged:
        seconds = time.process_time() - began
    return RecordedRun(
        task=job.task,
        config=job.config,
        fold=job.fold,
        point=active(config, space.load(SPACE)),
        trainable_params=training.student.trainable_params(),
        seconds=seconds,
        val_accuracy=tuple(epoch.val_accuracy for epoch in epochs),
        val_loss=tuple(epoch.val_loss for epoch in epochs),
        test_accuracy=tested[0],
        test_loss=tested[1],
    )


def kept(path: Path) -> dict[tuple[str, str, int], RecordedRun]:
    """Runs that an earlier call wrote: in the table, and in the lines beside it."""
    found = table.read(path) if path.exists() else []
    if lines(path).exists():
        whole = lines(path).read_text().split("\n")[:-1]  # a line that was cut short is recorded again
        found += [table.from_row(json.loads(line)) for line in whole]
    return {(run.task, run.config, run.fold): run for run in found}


def lines(path: Path) -> Path:
    """Where runs are kept until the table is complete."""
    return path.with_suffix(".jsonl")


def record(path: Path, jobs: Iterable[Wanted], processes: int) -> None:
    """Carry out the runs that are not kept yet, then write the table."""
    done = kept(path)
    missing = [job for job in jobs if (job.task, job.config, job.fold) not in done]
    print(f"{len(done)} runs are there, {len(missing)} to go", flush=True)
    began = time.monotonic()
    with lines(path).open("a") as file, mapping(processes) as carried_out:
        for number, found in enumerate(carried_out(recorded, missing), start=1):
            file.write(json.dumps(asdict(found)) + "\n")
            file.flush()
            if number % 50 == 0:
                left = (time.monotonic() - began) / number * (len(missing) - number)
                print(f"{number} of {len(missing)}, {left / 60:.0f} minutes left", flush=True)
    table.write(path, kept(path).values(), story())
    lines(path).unlink()


def story() -> dict[str, str]:
    return {
        "made by": "python -m benchmarks.record",
        "date": str(datetime.datetime.now(datetime.UTC).date()),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, one thread per run",
        "torch": torch.__version__,
        "test split": "read after every run: this is a benchmark outside any search",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=table.SHIPPED, help="the table; the one in the package if absent")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--configs", type=int, default=CONFIGS, help="random points of the space, beside the arms")
    given = parser.parse_args()
    record(given.out, wanted(given.configs), given.processes)


if __name__ == "__main__":
    main()
