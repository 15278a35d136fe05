"""What a search is going to do, checked as a whole before anything starts."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

from idat_tune import recipes, tasks
from idat_tune import space as spaces
from idat_tune.backbones import EMBEDDED, NO_TEACHER
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.journal import EXPLORE, FINAL, TEST
from idat_tune.recipes import KIND
from idat_tune.search import grid
from idat_tune.search.config import GRID, SearchConfig
from idat_tune.space import Choice, Domain, Space
from idat_tune.tasks import Task

DEFAULT, ALONE, NO_DISTILL, LINEAR, WINNER = "default", "alone", "no_distill", "linear", "winner"  # arms
LINEAR_RATES = (1e-3, 1e-2, 1e-1)  # learning rates that the linear arm is tried with
LINEAR_EPOCHS = 50  # of each, or as many as others have: features are computed once, so they take little time
MOST_CHECKED = 2_000  # points of a space that are checked before a search; the shipped spaces have some hundreds
SAMPLE = 24  # configs that stand for a space


@dataclass(frozen=True)
class Job:
    """A trial to run."""

    id: str
    stage: str
    arms: tuple[str, ...]  # what it stands for; none if it was proposed by the sampler
    config: RunConfig
    contender: str | None = None  # in the confirm stage: the explored trial whose config it runs
    fold: int | None = None  # in the confirm stage: the split


@dataclass(frozen=True)
class Plan:
    """One search over one task."""

    config: SearchConfig
    task: Task
    space: Space  # with everything held that the user sets
    out: Path  # absolute; holds the tracking store and a folder per search
    hints: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()  # points to try after the arms, by trial id
    left_out: tuple[tuple[str, str], ...] = ()  # teachers of the task's own space that cannot be had, and why

    @property
    def name(self) -> str:
        """Of the search."""
        assert self.config.name is not None
        return self.config.name

    @property
    def seed(self) -> int:
        """Of the sampler and of every explored run; final runs and splits count on from it."""
        return self.config.seed

    @property
    def folder(self) -> Path:
        """Where this search keeps its files."""
        return self.out / self.name

    @classmethod
    def checked(cls, config: SearchConfig) -> Self:
        """A plan whose every possible trial is a valid run.

        Args:
            config: with a name, and with a space.

        Raises:
            BadInput: a point of the space that RunConfig refuses, or a setting that no space may have.
        """
        space, fixed = spaces.of(config.space), config.fixed
        if config.recipe is not None:  # its kind is held; the rest are defaults, which may be searched
            fixed = {KIND: recipes.get(config.recipe).settings[KIND], **fixed}
        searched_keys = {param.key for param in space.params} - set(fixed)
        if "image_size" in searched_keys:
            raise BadInput("image_size cannot be searched: all trials share the same images; hold it with --set")
        if "seed" in {*fixed, *dict(space.fixed), *searched_keys}:
            raise BadInput("the seed is chosen with --seed, not in a space or with --set")
        searched = space.with_fixed(fixed)
        if config.explore.sampler == GRID:
            grid.points(searched)
        whole = config.updated({"space": space.written()})  # whatever becomes of the file
        plan = cls(whole, tasks.get(config.task), searched, Path(config.out).absolute())
        plan._check_points()
        return plan.hinted(config.hints or {})

    def _check_points(self) -> None:
        """Refuse a space that may propose what cannot be run; trials that fail one by one would hide it."""
        self.config_of({})
        for start in self.space.start:
            self.config_of(dict(start))
        for name, named in self.space.arms:
            try:
                self.config_of(dict(named))
            except BadInput as failure:
                raise BadInput(f"arm '{name}' of space '{self.space.name}' cannot be run: {failure}") from None
        tried = set()
        for point in (*islice(grid.walk(self.space, _judged_together), MOST_CHECKED), *self._corners()):
            if (key := tuple(point.items())) in tried:
                continue
            tried.add(key)
            try:
                self.config_of(point)
            except BadInput as failure:
                raise BadInput(
                    f"space '{self.space.name}' can propose what cannot be run: {failure}; or hold a setting with "
                    "--set, or change the space"
                ) from None

    def config_of(self, point: Mapping[str, Any]) -> RunConfig:
        """The run of a point of the space; keys that it does not set are those of the recipe, or the task's default."""
        changes = {**dict(self.space.fixed), **point}
        config = RunConfig.for_task(self.task.name, {"seed": self.seed, **changes}, self.config.recipe)
        if config.selected_on_test:
            raise BadInput(
                "protocol cannot be paper in a search: it selects on the test split, which a search keeps sealed; "
                "run it alone with `idat-tune train --set protocol=paper`"
            )
        return config

    def _corners(self) -> list[dict[str, Any]]:
        """Points that have every bound of every domain among them."""

        def pick(chooser: random.Random) -> Any:
            def ask(label: str, domain: Domain) -> Any:
                values = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
                return chooser.choice(values)

            return ask

        chooser = random.Random(0)
        return [self.space.propose(pick(chooser)) for _ in range(256)]

    def sample(self) -> list[RunConfig]:
        """Some of the configs that the sampler may propose; every choice of the space is as likely as its others."""
        return [self.config_of(point) for point in self._corners()[:SAMPLE]]

    def arms(self) -> dict[str, RunConfig]:
        """The runs that every search compares with, by arm, then those that the space names."""
        default = self.config_of({})
        arms = {DEFAULT: default, ALONE: default.without_teacher()}
        if not default.alone:
            arms[NO_DISTILL] = default.updated({"distill.weight": 0.0})
        return arms | {name: self.config_of(dict(point)) for name, point in self.space.arms}

    @property
    def named_arms(self) -> list[str]:
        """The arms that the space has beside those of every search."""
        return [name for name, _ in self.space.arms]

    @property
    def trials(self) -> int:
        """The most that are explored: as asked for, or the arms where they are more; linear ones count for none."""
        first = sum(LINEAR not in job.arms for job in self._first_jobs)
        return max(self.config.explore.trials, first) if self.space.params else first

    @property
    def explores(self) -> bool:
        """Whether anything but arms is tried."""
        return self.trials > sum(bool(job.arms) and LINEAR not in job.arms for job in self._first_jobs)

    def linear_probes(self) -> list[RunConfig]:
        """The runs of the linear arm: a head on frozen features, by learning rate; none where that is the default."""
        default = self.config_of({})
        if default.adapter.kind == LINEAR:
            return []
        frozen = {"adapter.kind": LINEAR, "model.drop_path": 0.0, "gist.token": False, "pace.weight": 0.0}
        probe = default.without_teacher().updated(frozen)
        epochs = {"epochs": max(LINEAR_EPOCHS, default.epochs)}
        return [probe.updated({**epochs, "optim.lr": rate}) for rate in LINEAR_RATES]

    def backbones(self) -> list[str]:
        """Every backbone that a trial may use."""
        configs = [self.config_of(point) for point in ({}, *self._corners(), *map(dict, self.space.start))]
        configs += self.arms().values()
        names = dict.fromkeys(name for config in configs for name in (config.student, config.teacher))
        return [name for name in names if name != NO_TEACHER]

    def pairs(self) -> list[RunConfig]:
        """A config for every student, teacher and size of images that come together in a trial."""
        configs = [self.config_of(point) for point in (*self._corners(), *map(dict, self.space.start), {})]
        configs += self.arms().values()
        return list({(config.student, config.teacher, config.image_size): config for config in configs}.values())

    def without_absent_teachers(self, before: Sequence[Sequence[str]] | None = None) -> Self:
        """The plan without those teachers of its space that cannot be had or see other images than the student.

        Args:
            before: what was left out when the search was begun, which then stays as it was.
        """
        if before is None:
            before = [(name, why) for name in self._teachers() if (why := self._why_not(name))]
        gone = {name for name, _ in before}
        if not gone:
            return self
        asked = spaces.of(self.config.space).without_values("teacher", gone)
        config = self.config.updated({"space": asked.written()})
        left_out = tuple((name, why) for name, why in before)
        return replace(self, config=config, space=self.space.without_values("teacher", gone), left_out=left_out)

    def kinds(self) -> list[str]:
        """The kinds of adapter that the space proposes."""
        return self._values(KIND) or [self.config_of({}).adapter.kind]

    def _values(self, key: str) -> list[str]:
        """The words that the space has for a key, in any condition."""
        domains = [param.domain for param in self.space.params if param.key == key]
        return list(dict.fromkeys(word for d in domains if isinstance(d, Choice) for word in d.values))

    def as_config(self) -> SearchConfig:
        """What repeats the search, without a look at what is known elsewhere, or at an opened test."""
        hints = {name: dict(point) for name, point in self.hints}
        return self.config.updated({"hints": hints, "final.reopen_test": False})

    def _teachers(self) -> list[str]:
        """Those that the space searches."""
        return self._values("teacher")

    def _why_not(self, teacher: str) -> str | None:
        """Why a teacher of the space cannot be used; None if it can, as what ships with the package always can."""
        config = self.config_of({"teacher": teacher})
        if {config.student, config.teacher} <= {*EMBEDDED, NO_TEACHER} or teacher == self.config_of({}).teacher:
            return None
        from idat_tune import model  # heavy

        try:
            model.check(config, fetch=False)
        except BadInput as failure:
            return str(failure)
        return None

    def first_jobs(self) -> list[Job]:
        """What is tried before the sampler proposes anything: the arms, the space's own starting points, then hints.

        The arms always run, the rest as far as the number of trials allows.
        """
        return list(self._first_jobs)

    @cached_property  # as what is next is asked for after every trial
    def _first_jobs(self) -> list[Job]:
        jobs = jobs_of(EXPLORE, "arm", self.arms())
        probes = self.linear_probes()
        jobs += [Job(f"arm-{LINEAR}-{place}", EXPLORE, (LINEAR,), probe) for place, probe in enumerate(probes)]
        most = self.config.explore.trials + len(probes)
        starts = [(f"start-{index}", dict(point)) for index, point in enumerate(self.space.start)]
        for name, point in [*starts, *((name, dict(hint)) for name, hint in self.hints)]:
            config = self.config_of(point)
            if len(jobs) < most and config not in [job.config for job in jobs]:
                jobs.append(Job(name, EXPLORE, (), config))
        return jobs

    def merged(self) -> list[tuple[str, str]]:
        """What the space names and a trial of another name stands for, as both have one config; with that trial."""
        jobs, named = self._first_jobs, self.named_arms
        found = [(arm, job.id) for job in jobs for arm in job.arms[1:] if arm in named]
        by_config, names = {job.config: job.id for job in jobs}, {job.id for job in jobs}
        starts = [(f"start-{index}", self.config_of(dict(point))) for index, point in enumerate(self.space.start)]
        return found + [(n, by_config[config]) for n, config in starts if n not in names and config in by_config]

    def hinted(self, hints: Mapping[str, Mapping[str, Any]]) -> Self:
        """The plan with more points to try early, by trial id: of each what the space searches, if it lies in it.

        They come before those that the plan has already.
        """
        points = {name: self.space.part(point) for name, point in hints.items()}
        fitting = [(name, tuple(point.items())) for name, point in points.items() if point]
        return replace(self, hints=(*fitting, *self.hints))

    def arm_finals(self) -> list[Job]:
        """What of the final run is known from the start, per seed: default, alone, the space's arms."""
        return list(self._of_arms)

    @cached_property
    def _of_arms(self) -> list[Job]:
        arms = self.arms()
        return [
            job
            for seed in self._seeds()
            for job in jobs_of(
                FINAL,
                f"final-{seed}",
                {arm: arms[arm].updated({"seed": seed}) for arm in (DEFAULT, ALONE, *self.named_arms)},
            )
        ]

    def finals(self, trial: str, config: RunConfig, arms: tuple[str, ...] = ()) -> list[Job]:
        """A config on all training images, once per seed."""
        configs = [(seed, config.updated({"seed": seed})) for seed in self._seeds()]
        return [Job(f"final-{seed}-{trial}", FINAL, arms, seeded, contender=trial) for seed, seeded in configs]

    def _seeds(self) -> range:
        return range(self.seed, self.seed + self.config.final.seeds)

    def test_job(self, opening: int, winner: RunConfig) -> Job:
        """The one that opens the test split, for all students of the final run; `opening` counts from 1."""
        return Job(test_id(opening), TEST, (), winner)

    def identity(self) -> dict[str, Any]:
        """What a resumed search must have in common with its beginning, by the keys of SearchConfig."""
        same = ("task", "seed", "confirm.top_k", "confirm.folds")
        flat, recipe = self.config.flat(), self.config.recipe
        # With its settings, which another version may have otherwise.
        settings = None if recipe is None else {recipe: dict(recipes.get(recipe).settings)}
        return {"space": self.space.written(), "recipe": settings, **{key: flat[key] for key in same}}


def _judged_together(domain: Domain) -> tuple[Any, ...]:
    """What settings may forbid each other by: words, and whether a whole number is small, large, odd or even."""
    if isinstance(domain, Choice):
        return domain.values
    if not domain.integer:
        return (domain.low,)
    low, high = int(domain.low), int(domain.high)
    return tuple(dict.fromkeys((low, low + 1, high - 1, high)))


def test_id(opening: int) -> str:
    """The id of the trial that opens the test split for the first time, the second, ..."""
    return TEST if opening == 1 else f"{TEST}-{opening}"


def jobs_of(stage: str, prefix: str, arms: Mapping[str, RunConfig]) -> list[Job]:
    """A job per distinct config; arms that have the same config share one, named by the first of them."""
    shared: dict[RunConfig, list[str]] = {}
    for arm, config in arms.items():
        shared.setdefault(config, []).append(arm)
    return [Job(f"{prefix}-{names[0]}", stage, tuple(names), config) for config, names in shared.items()]
