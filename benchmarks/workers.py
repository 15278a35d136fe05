"""How many workers a search can use: up to 1,000, simulated on recorded curves with the search's own sampler and rule.

`python -m benchmarks.workers` plays searches in virtual time. Proposals (TPE, which holds running trials for bad ones)
and halving are the real ones, whatever a trial reports is looked up in the recorded curves, moved to the nearest
recorded config. A driver serves one report or proposal at a time, in what was measured for each.
"""

import argparse
import heapq
import itertools
import json
import math
import multiprocessing
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState

from idat_tune import space
from idat_tune.replay import table
from idat_tune.replay.compare import SPACE
from idat_tune.replay.simulate import Benchmark, _ask_for
from idat_tune.search.config import TPE
from idat_tune.search.sampler import new_study, reseed
from idat_tune.search.stopping import rule

WORKERS = (1, 4, 16, 64, 256, 1000)
TASKS = ("digits", "sprites_loc")  # that the table has
TOGETHER = 19  # tasks of VTAB-1K
TRIALS = 512
SEEDS = 4
RUN = 38.0  # seconds of a whole trial on a worker; the aim for ViT-S -> ViT-B on a GPU
REPORT = 0.0019  # seconds of the driver per report, without MLflow
PROPOSAL, PER_TRIAL = 0.008, 0.000023  # seconds of the driver per proposal, and more for each trial that was told
WITHIN = 0.02  # of the best test accuracy there is: a search that close has arrived


@dataclass(frozen=True)
class Step:
    """What a search would hand over from some moment on."""

    seconds: float  # virtual
    trials: int  # that had ended
    regret: float  # test accuracy of the best recorded config, less that of the best by validation


def play(benchmark: Benchmark, workers: int, seed: int, trials: int = TRIALS) -> list[Step]:
    """A search that explores with so many workers."""
    study = new_study(TPE, seed, benchmark.space)
    stops = rule("halving", benchmark.epochs, benchmark.warmup_epochs)
    fold = benchmark.folds[seed % len(benchmark.folds)]
    best_truth = max(benchmark.truth.values())
    pace = RUN / benchmark.epochs
    driver = 0.0  # until when it is busy
    events: list[tuple[float, int, int, str, optuna.trial.Trial]] = []  # when, order, epoch, config, proposal
    order, ended, best, found = itertools.count(), 0, -math.inf, []

    def begin(now: float, number: int) -> float:
        """A worker asks for a trial; until when the driver is busy with that."""
        reseed(study, TPE, seed, number, benchmark.space)
        proposal = study.ask()
        _ask_for(proposal, benchmark.space)
        name = benchmark.nearest.order(proposal.params)[0]
        done = max(now, driver) + PROPOSAL + PER_TRIAL * number
        heapq.heappush(events, (done + pace, next(order), 1, name, proposal))
        return done

    for number in range(min(workers, trials)):
        driver = begin(0.0, number)
    begun = min(workers, trials)
    while events:
        now, _, epochs, name, proposal = heapq.heappop(events)
        driver = max(now, driver) + REPORT
        score = benchmark.scores[name][fold][epochs - 1]
        proposal.report(score, epochs)
        last = epochs == benchmark.epochs
        if not (stops.stops(f"{proposal.number}", epochs, score) and not last) and not last:
            heapq.heappush(events, (driver + pace, next(order), epochs + 1, name, proposal))
            continue
        ended += 1
        if last:
            study.tell(proposal, score)
            if score > best:
                best = score
                found.append(Step(driver, ended, best_truth - benchmark.truth[name]))
        else:
            study.tell(proposal, state=TrialState.PRUNED)
        if begun < trials:
            driver = begin(driver, begun)
            begun += 1
    return [*found, Step(driver, ended, found[-1].regret)]


def at(steps: Sequence[Step], seconds: float) -> float:
    """The regret after so long; that of the default where nothing had ended."""
    return next((step.regret for step in reversed(steps) if step.seconds <= seconds), math.nan)


def _carry_out(job: tuple[str, int, int, int]) -> tuple[str, int, list[Step]]:
    task, workers, seed, trials = job
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    benchmark = Benchmark(table.read(), task, space.load(SPACE))
    return task, workers, play(benchmark, workers, seed, trials)


def played(trials: int, seeds: int, processes: int) -> Iterator[tuple[str, int, list[Step]]]:
    """All plays."""
    jobs = [(task, workers, seed, trials) for task in TASKS for workers in WORKERS for seed in range(seeds)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_carry_out, jobs)


def mean_regret(plays: Sequence[list[Step]], default: float, seconds: float) -> float:
    """Over plays; that of the default where nothing had ended."""
    known = [at(steps, seconds) for steps in plays]
    return statistics.fmean(default if math.isnan(value) else value for value in known)


def arrives(plays: Sequence[list[Step]], default: float) -> float | None:
    """Seconds until the mean regret is, and stays, within reach of the best."""
    moments = sorted({step.seconds for steps in plays for step in steps})
    late = [moment for moment in moments if mean_regret(plays, default, moment) > WITHIN]
    after = [moment for moment in moments if not late or moment > late[-1]]
    return after[0] if after else None


def main() -> None:
    """Write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--picture", type=Path, default=Path("benchmarks/workers.png"))
    parser.add_argument("--out", type=Path, help="JSON of all steps")
    asked = parser.parse_args()
    plays: dict[tuple[str, int], list[list[Step]]] = {}
    for task, workers, steps in played(asked.trials, asked.seeds, asked.processes):
        plays.setdefault((task, workers), []).append(steps)
    defaults = {task: _default(task) for task in TASKS}
    print("| task | workers | all trials, s | first winner, s | within 2 points, s | regret at the end, points |")
    print("|---|---|---|---|---|---|")
    for (task, workers), found in sorted(plays.items()):
        reached = arrives(found, defaults[task])
        print(
            f"| {task} | {workers} | {statistics.fmean(steps[-1].seconds for steps in found):.0f} "
            f"| {statistics.fmean(steps[0].seconds for steps in found):.0f} "
            f"| {'-' if reached is None else f'{reached:.0f}'} "
            f"| {100 * statistics.fmean(steps[-1].regret for steps in found):.2f} |"
        )
    _draw(plays, defaults, asked.picture)
    if asked.out:
        rows = [[*key, [[vars(step) for step in steps] for steps in found]] for key, found in plays.items()]
        asked.out.write_text(json.dumps(rows))


def _default(task: str) -> float:
    """The regret of the default config."""
    truth = Benchmark(table.read(), task, space.load(SPACE)).truth
    return max(truth.values()) - truth["default"]


def _draw(plays: dict[tuple[str, int], list[list[Step]]], defaults: dict[str, float], path: Path) -> None:
    """Regret over time: of one task on so many workers, and of 19 on 1,000, one after the other and side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * (len(defaults) + 1), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(defaults) + 1)
    for panel, (task, default) in zip(panels[:-1], defaults.items(), strict=True):
        for workers in WORKERS:
            found = plays[task, workers]
            moments = sorted({step.seconds for steps in found for step in steps})
            panel.step(
                moments, [100 * mean_regret(found, default, one) for one in moments], where="post", label=f"{workers}"
            )
        panel.set_title(f"{task}, one search")
        panel.legend(title="workers", fontsize=8)
    last, task = panels[-1], TASKS[-1]
    beside = max(workers for workers in WORKERS if workers * TOGETHER <= 2 * WORKERS[-1])
    for found, times, label in (
        (plays[task, WORKERS[-1]], TOGETHER, f"{TOGETHER} tasks one after the other on {WORKERS[-1]}"),
        (plays[task, beside], 1, f"{TOGETHER} side by side, {beside} each"),
    ):
        moments = sorted({step.seconds for steps in found for step in steps})
        end = statistics.fmean(steps[-1].seconds for steps in found)
        if times == 1:
            ys = [100 * mean_regret(found, defaults[task], one) for one in moments]
        else:  # of the mean over tasks, of which those that have not begun are at the default
            moments = [share * end for share in range(times + 1)]
            ends = statistics.fmean(steps[-1].regret for steps in found)
            ys = [100 * (done * ends + (times - done) * defaults[task]) / times for done in range(times + 1)]
        last.step(moments, ys, where="post", label=label)
    last.set_title(f"{TOGETHER} tasks like {task}")
    last.legend(fontsize=8)
    for panel in panels:
        panel.set_xscale("log")
        panel.set_xlabel("seconds")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("regret in test accuracy, points")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
