"""Settings of a search compared over many replays: test accuracy of what they choose against epochs spent."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from idat_tune import space
from idat_tune.errors import BadInput, unknown
from idat_tune.replay import table
from idat_tune.replay.processes import mapping
from idat_tune.replay.simulate import Benchmark, Chosen, Confirm, Explore, choose, replay
from idat_tune.search.config import GP, GRID, MEDIAN, NONE, RANDOM
from idat_tune.search.plan import DEFAULT

SPACE = "embedded"  # that the table was recorded in
BASE = "random-64"  # random search at full budget, what all settings are held against
BASE_TRIALS = 64
TRIALS = (8, 12, 16, 24, 32, 48, 64)  # after which a search may end, arms and starting configs included
QUARTER = 160  # epochs: a quarter of what the base spends
SLOW = {GP: 10}  # samplers that get so many times fewer replays


@dataclass(frozen=True)
class Setting:
    """How a search is set."""

    explore: Explore = field(default_factory=Explore)
    confirm: Confirm = field(default_factory=Confirm)


# One thing at a time differs from the defaults.
GROUPS: dict[str, dict[str, Setting]] = {
    "samplers": {
        "sampler random": Setting(Explore(sampler=RANDOM)),
        "sampler grid": Setting(Explore(sampler=GRID)),
        "sampler gp": Setting(Explore(sampler=GP)),
    },
    "stopping": {
        "stopping none": Setting(Explore(stopping=NONE)),
        "stopping median": Setting(Explore(stopping=MEDIAN)),
        **{f"grace {epochs}": Setting(Explore(grace=epochs)) for epochs in (1, 3, 4)},
        **{f"eta {eta}": Setting(Explore(eta=eta)) for eta in (2, 3, 4)},
    },
    "confirm": {
        "confirm none": Setting(confirm=Confirm(top_k=0)),
        **{f"top-k {k}": Setting(confirm=Confirm(top_k=k)) for k in (1, 2, 3, 5, 8)},
        **{f"folds {folds}": Setting(confirm=Confirm(folds=folds)) for folds in (2, 3, 4)},
        "ties to the smallest": Setting(confirm=Confirm(fewest=True)),
    },
    "portfolio": {"portfolio off": Setting(Explore(portfolio=False))},
}
ALL = "all"


@dataclass(frozen=True)
class Point:
    """What a setting comes to when the search ends after so many trials; means over replays."""

    trials: int
    explored: float  # epochs
    confirmed: float  # epochs
    test_accuracy: float  # of the chosen config, a fraction
    standard_error: float  # of that, over replays
    below_default: float  # part of the replays that chose a config more than its standard error below the default
    worst: float  # test accuracy of the worst choice minus the default's, a fraction
    trainable_params: float  # of the chosen config's student

    @property
    def epochs(self) -> float:
        """All that were spent."""
        return self.explored + self.confirmed


@dataclass(frozen=True)
class Curve:
    """A setting over numbers of trials."""

    setting: str
    replays: int
    points: tuple[Point, ...]

    def accuracy_at(self, epochs: float) -> float | None:
        """Test accuracy for so many epochs, between two points; None outside of what was replayed."""
        for before, after in zip(self.points, self.points[1:], strict=False):
            if before.epochs <= epochs <= after.epochs:
                part = (epochs - before.epochs) / max(after.epochs - before.epochs, 1e-9)
                return before.test_accuracy + part * (after.test_accuracy - before.test_accuracy)
        return None

    def epochs_to(self, accuracy: float) -> float | None:
        """Epochs after which a test accuracy is reached; None if it is not."""
        if self.points[0].test_accuracy >= accuracy:
            return self.points[0].epochs
        for before, after in zip(self.points, self.points[1:], strict=False):
            if before.test_accuracy < accuracy <= after.test_accuracy:
                part = (accuracy - before.test_accuracy) / (after.test_accuracy - before.test_accuracy)
                return before.epochs + part * (after.epochs - before.epochs)
        return None


@dataclass(frozen=True)
class Comparison:
    """All settings on one task."""

    task: str
    default: float  # test accuracy of the default config
    best: float  # of the best recorded config, which nobody can know
    curves: tuple[Curve, ...]  # the base first, then the defaults

    @property
    def base(self) -> Point:
        """Random search at full budget."""
        return self.curves[0].points[-1]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "task": self.task,
            "default_test_accuracy": self.default,
            "best_test_accuracy": self.best,
            "base": {**asdict(self.base), "epochs": self.base.epochs},
            "settings": [self._row(curve) for curve in self.curves],
        }

    def _row(self, curve: Curve) -> dict[str, Any]:
        return {
            "setting": curve.setting,
            "replays": curve.replays,
            "points": [{**asdict(point), "epochs": point.epochs} for point in curve.points],
            "test_accuracy_at_quarter": curve.accuracy_at(QUARTER),
            "epochs_to_base": curve.epochs_to(self.base.test_accuracy),
        }


def chosen_settings(groups: Iterable[str]) -> dict[str, Setting]:
    """The settings of some groups by name, after the base and the defaults.

    Raises:
        BadInput: there is no such group.
    """
    settings = {
        BASE: Setting(Explore(sampler=RANDOM, stopping=NONE, portfolio=False), Confirm(top_k=0)),
        "defaults": Setting(),
    }
    for group in groups:
        if group not in (ALL, *GROUPS):
            raise unknown("comparison", group, [ALL, *GROUPS])
        for known in GROUPS if group == ALL else [group]:
            settings |= {name: other for name, other in GROUPS[known].items() if other != Setting()}
    return settings


@dataclass(frozen=True)
class Job:
    """A replay: explored once, ended after several numbers of trials, confirmed in several ways."""

    path: Path
    task: str
    explore: Explore
    confirms: tuple[Confirm, ...]
    trials: tuple[int, ...]
    seed: int


def compare(
    path: Path, tasks: Sequence[str], groups: Sequence[str], replays: int, most: int, processes: int, log: Callable
) -> Iterator[Comparison]:
    """Compare settings on each task, over so many replays of up to `most` trials.

    Raises:
        BadInput: a number out of range, or an unknown task, table or group.
    """
    if replays < 2:
        raise BadInput(f"--replays cannot be {replays}: a spread needs at least 2")
    if most < TRIALS[0]:
        raise BadInput(f"--trials cannot be {most}: the arms and the starting configs take {TRIALS[0]}")
    settings = chosen_settings(groups)
    for task in tasks:
        _benchmark(path, task)
    with mapping(processes) as carried_out:
        for task in tasks:
            curves = _curves(path, task, settings, replays, most, carried_out, log)
            known = _benchmark(path, task)
            yield Comparison(task, known.truth[DEFAULT], max(known.truth.values()), curves)


@cache
def _benchmark(path: Path, task: str) -> Benchmark:
    return Benchmark(table.read(path), task, space.load(SPACE))


def _curves(
    path: Path,
    task: str,
    settings: Mapping[str, Setting],
    replays: int,
    most: int,
    carried_out: Callable,
    log: Callable[[str], None],
) -> tuple[Curve, ...]:
    found: dict[Setting, Curve] = {}
    for how in dict.fromkeys(setting.explore for setting in settings.values()):
        confirms = tuple(setting.confirm for setting in settings.values() if setting.explore == how)
        names = {s.confirm: name for name, s in settings.items() if s.explore == how}
        trials = TRIALS if BASE in names.values() else tuple(n for n in TRIALS if n <= most)
        count = max(2, replays // SLOW.get(how.sampler, 1))
        log(f"{task}: {', '.join(names.values())}")
        jobs = [Job(path, task, how, confirms, trials, seed) for seed in range(count)]
        outcomes = list(carried_out(_carry_out, jobs))
        for place, confirm in enumerate(confirms):
            points = [
                _point(_benchmark(path, task), n, [outcome[place][end] for outcome in outcomes])
                for end, n in enumerate(trials)
            ]
            found[Setting(how, confirm)] = Curve(names[confirm], count, tuple(points))
    return tuple(found[setting] for setting in settings.values())


def _carry_out(job: Job) -> list[list[Chosen]]:
    """What is chosen, by way to confirm and by number of trials."""
    quiet()
    benchmark = _benchmark(job.path, job.task)
    fold, explored = replay(benchmark, job.explore, job.seed, job.trials[-1])
    return [[choose(benchmark, explored[:n], fold, confirm) for n in job.trials] for confirm in job.confirms]


def quiet() -> None:
    """No line per trial from Optuna."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _point(benchmark: Benchmark, trials: int, outcomes: Sequence[Chosen]) -> Point:
    accuracies = [benchmark.truth[outcome.config] for outcome in outcomes]
    default = benchmark.truth[DEFAULT]
    worse = [
        benchmark.truth[outcome.config] < default - benchmark.curves[outcome.config].standard_error
        for outcome in outcomes
    ]
    return Point(
        trials=trials,
        explored=statistics.fmean(outcome.explored for outcome in outcomes),
        confirmed=statistics.fmean(outcome.confirmed for outcome in outcomes),
        test_accuracy=statistics.fmean(accuracies),
        standard_error=statistics.stdev(accuracies) / math.sqrt(len(accuracies)),
        below_default=statistics.fmean(worse),
        worst=min(accuracies) - default,
        trainable_params=statistics.fmean(benchmark.curves[outcome.config].trainable_params for outcome in outcomes),
    )
