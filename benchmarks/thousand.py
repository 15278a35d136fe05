"""A search of 1,000 trials without its training: memory and time of the driver, and the time to resume it.

`python -m benchmarks.thousand`: real Optuna, journal, tables and MLflow; only the results of trials are made up.
"""

import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from idat_tune import tracking
from idat_tune.journal import COMPLETE, EXPLORE, Journal
from idat_tune.metrics import EpochMetrics, score
from idat_tune.search import Callback, Plan, SearchConfig, plan_search
from idat_tune.search.driver import begin
from idat_tune.search.manifest import JOURNAL, Manifest
from idat_tune.search.searcher import StagedSearcher
from idat_tune.search.tracked import Tracked
from idat_tune.worker.pool import Place

TRIALS, EPOCHS = 1000, 100


class Anywhere:
    """A pool of workers with room for any trial, on one machine."""

    limit = None

    def place(self, taken: list[Place], alone: bool, paces: dict[str, float]) -> Place:
        return Place("worker", alone)

    def machine(self, worker: str) -> str:
        return "machine"


def a_plan(out: Path, trials: int) -> Plan:
    return plan_search(SearchConfig.of("digits", trials=trials, fixed={"epochs": EPOCHS}, out=out, name="many"))


def results(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Curves that rise to a level which the learning rate and luck decide."""
    flat = payload["config"]
    draw = random.Random(payload["id"])
    level = 0.95 - 0.1 * abs(math.log10(flat["optim.lr"]) + 2) - 0.05 * draw.random()
    found = []
    for number in range(EPOCHS):
        accuracy = round(200 * level * (1 - 0.7 ** (number + 1))) / 200
        epoch = EpochMetrics(
            number, flat["optim.lr"], 1 - accuracy, 0.5, 0.5, 0.1, accuracy, 1 - accuracy, 0.5, 1.0, 800.0, None
        )
        last = {"status": COMPLETE if number + 1 == EPOCHS else "running", "trainable_params": 2092, "worker": 1}
        rank = {"score": score(accuracy, 1 - accuracy, 200), "val_images": 200}
        found.append({**epoch.as_dict(), **rank, **last})
    return found


def play(searcher: StagedSearcher, tune_id: str, payload: dict[str, Any]) -> None:
    """One trial, in the order of Ray Tune's own controller."""
    trial = SimpleNamespace(trial_id=tune_id, config=payload)
    *before, last = results(payload)
    for result in before:
        if searcher.scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            last = result
            break
        searcher.on_trial_result(tune_id, result)
    searcher.on_trial_complete(tune_id, last)


def opened(plan: Plan) -> tuple[StagedSearcher, dict[str, float]]:
    """What a search does before its first trial, Ray apart, with the seconds of each part."""
    seconds = {}
    began = time.perf_counter()

    def part(name: str) -> None:
        nonlocal began
        seconds[name] = time.perf_counter() - began
        began = time.perf_counter()

    journal, manifest = Journal(plan.folder / JOURNAL), Manifest(plan, "hash")
    begin(plan, journal)
    part("journal")
    tracked = Tracked(plan, journal, manifest, Callback())
    tracked.start()
    part("start the process that sends")
    searcher = StagedSearcher(plan, journal, manifest, tracked, Callback(), Anywhere())  # type: ignore[arg-type]
    part("study, stopping rule, searcher")
    return searcher, seconds


def megabytes() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def run(out: Path, trials: int) -> dict[str, Any]:
    plan = a_plan(out, trials)
    plan.folder.mkdir(parents=True)
    searcher, _ = opened(plan)
    before, spent = megabytes(), {"ask": 0.0, "results": 0.0}
    for number in range(trials):
        began = time.perf_counter()
        payload = searcher.suggest(f"t{number}")
        spent["ask"] += time.perf_counter() - began
        if not isinstance(payload, dict) or payload["stage"] != EXPLORE:
            break
        play(searcher, f"t{number}", payload)
        spent["results"] += time.perf_counter() - began
    assert len(searcher.journal.of(EXPLORE)) == trials
    assert payload != Searcher.FINISHED
    searcher.tracker.close()
    return {
        "mb_before": before,
        "mb_after": megabytes(),
        "seconds_per_trial": {k: v / trials for k, v in spent.items()},
    }


def resume(out: Path, trials: int) -> dict[str, Any]:
    plan = a_plan(out, trials + 1)
    before = megabytes()
    searcher, seconds = opened(plan)
    began = time.perf_counter()
    searcher.suggest("next")
    seconds["the next proposal"] = time.perf_counter() - began
    began = time.perf_counter()
    searcher.journal.write_tables(plan.folder)
    searcher.tracker.close()
    seconds["write the tables"] = time.perf_counter() - began
    return {"seconds": seconds, "mb_before": before, "mb_after": megabytes()}


def apart(what: str, out: str, trials: int) -> dict[str, Any]:
    """In a process of its own, so that memory is its own too."""
    command = [sys.executable, "-m", "benchmarks.thousand", what, out, str(trials)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    with tempfile.TemporaryDirectory() as out:
        ran, resumed = apart("run", out, TRIALS), apart("resume", out, TRIALS)
        journal = (Path(out) / "many" / JOURNAL).stat().st_size
        epochs = sum(len(record.epochs) for record in Journal(Path(out) / "many" / JOURNAL).records)
        store = tracking.store(Path(out)).stat().st_size
    print(f"{TRIALS:,} trials of {EPOCHS} epochs, {epochs:,} epochs after halving, TPE\n")
    print("| measured | | aim |\n|---|---|---|")
    print(f"| memory of the driver, Ray apart: before the first trial | {ran['mb_before']:.0f} MB | |")
    print(f"| after {TRIALS:,} trials | {ran['mb_after']:.0f} MB | |")
    print(f"| driver's time per trial: to propose | {1000 * ran['seconds_per_trial']['ask']:.0f} ms | |")
    print(f"| to take results in, journal and track them | {1000 * ran['seconds_per_trial']['results']:.0f} ms | |")
    print(f"| journal, tracking store on disk | {journal / 1e6:.0f} MB, {store / 1e6:.0f} MB | |")
    print(f"| to resume, Ray's start and imports apart | {sum(resumed['seconds'].values()):.2f} s | 5 s |")
    for name, seconds in resumed["seconds"].items():
        print(f"| of these: {name} | {seconds:.2f} s | |")
    print(f"| memory after the resume | {resumed['mb_after']:.0f} MB | |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps({"run": run, "resume": resume}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
