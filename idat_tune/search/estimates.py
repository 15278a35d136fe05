"""How long a search takes, stage by stage: before it starts, and from where it stands."""

import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from idat_tune.backbones import NO_TEACHER
from idat_tune.config import RunConfig
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FINAL, TEST, TrialRecord
from idat_tune.metrics import Speed
from idat_tune.search.config import ExploreConfig
from idat_tune.search.plan import LINEAR, NO_DISTILL, Job, Plan
from idat_tune.search.stopping import rule

PLAYED = 2000  # trials, in all plays of the stopping rule together, whose mean is the forecast
RACED = 0.7  # part that a race leaves of the confirm stage; measured with the top 5, see benchmarks/estimate.md


Key = tuple[Any, ...]
LIKELY: Key = ()  # stands for what is likely to be proposed
KEYS = ("student", "teacher", "adapter.kind", "adapter.hidden_dim", "batch_size", "adapter.targets", "gist.token")


# What older journals do not say.
UNSAID = {"adapter.targets": "qv", "gist.token": False, "pace.weight": 0.0, "pace.mode": "each"}


def cost_key(flat: Mapping[str, Any]) -> Key:
    """What of a flat config its speed and memory hang on."""
    known = {**UNSAID, **flat}
    return *(known[key] for key in KEYS), known["pace.mode"] if known["pace.weight"] else None


@dataclass(frozen=True)
class Pace:
    """What is known of the speed of configs, and which ones are likely to be proposed."""

    known: Mapping[Key, Speed]
    sample: Sequence[Key]

    def of(self, *keys: Key) -> Speed:
        """The speed of a config, or the mean speed of several; what is usual where a config is not known."""
        speeds = [self.known[key] for key in keys if key in self.known]
        return Speed.mean(speeds or list(self.known.values()))

    @property
    def taught(self) -> float:
        """The part of what is likely to be proposed that has a teacher."""
        return statistics.fmean(key[1] != NO_TEACHER for key in self.sample)


def sample_of(plan: Plan) -> list[Key]:
    """What stands for the plan's space before anything is proposed."""
    return [cost_key(config.flat()) for config in plan.sample()]


@dataclass(frozen=True)
class Standing:
    """Where a search stands."""

    records: Sequence[TrialRecord] = ()
    running: Sequence[tuple[Job, int]] = ()  # with the epochs that each is through
    explored: bool = False  # whether nothing is proposed any more
    winner: RunConfig | None = None  # once it is chosen
    spent: float = 0.0  # seconds of exploring

    @property
    def proposed(self) -> int:
        """Trials that are done or running, the linear arm's aside, which are none."""
        arms = [record.arms for record in self.records if record.stage == EXPLORE]
        return sum(LINEAR not in one for one in (*arms, *(job.arms for job, _ in self.running if job.stage == EXPLORE)))

    def begun(self, stage: str) -> int:
        """Trials of a stage that are done or running."""
        return sum(record.stage == stage for record in self.records) + sum(
            job.stage == stage for job, _ in self.running
        )


@dataclass
class StageEstimate:
    """What a stage has before it."""

    epochs: float = 0.0  # of a backbone with adapters
    busy: float = 0.0  # seconds of workers
    longest: float = 0.0  # seconds of its longest run

    def add(self, runs: float, epochs: float, seconds: float) -> None:
        """More runs of so many epochs and seconds each."""
        self.epochs += runs * epochs
        self.busy += runs * seconds
        self.longest = max(self.longest, seconds if runs else 0.0)

    def wall(self, workers: int) -> float:
        """Seconds with so many workers; not shorter than one run."""
        return max(self.busy / workers, self.longest)


@dataclass(frozen=True)
class Estimate:
    """What is ahead."""

    seconds: float  # wall time of all trials
    stages: Mapping[str, StageEstimate]

    @property
    def busy(self) -> float:
        """Seconds of workers."""
        return sum(stage.busy for stage in self.stages.values())


def estimated(
    plan: Plan,
    workers: int,
    pace: Pace,
    gpus: float = 0.0,
    standing: Standing = Standing(),
) -> Estimate:
    """What is ahead of a search of so many workers, whose trials take so many GPUs each.

    Patience cannot be foreseen: it only makes a search shorter.
    """
    stages = {stage: StageEstimate() for stage in (EXPLORE, CONFIRM, FINAL, TEST)}
    complete = _explore(stages[EXPLORE], plan, pace, standing)
    _cut(stages[EXPLORE], workers, plan.config.explore, gpus, standing)
    _confirm(stages[CONFIRM], plan, pace, standing, complete)
    _final(stages[FINAL], plan, pace, standing)
    for job, through in standing.running:
        if job.stage in (CONFIRM, FINAL):
            _add(stages[job.stage], plan, pace, cost_key(job.config.flat()), job.config.epochs - through)
    if not any(record.stage == TEST for record in standing.records):
        students = _finalists(plan) * plan.config.final.seeds
        speed = pace.of(cost_key(plan.config_of({}).without_teacher().flat()))
        stages[TEST].add(1, 0, students * plan.task.test * speed.val)
    # What needs no decision fills the gaps between stages; at the end the last run of the final stage is waited for.
    wall = sum(stage.wall(workers) for stage in stages.values())
    return Estimate(wall + stages[FINAL].longest * (1 - 1 / workers) / 2, stages)


def _add(
    stage: StageEstimate, plan: Plan, pace: Pace, key: Key, epochs: float, runs: float = 1, final: bool = False
) -> None:
    """Add runs of a config; or, where the key is LIKELY, of what is likely to be proposed."""
    train, val = (plan.task.train + plan.task.val, 0) if final else (plan.task.train, plan.task.val)
    speed = pace.of(key) if key else pace.of(*pace.sample)
    counted = 0 if key and key[2] == LINEAR else epochs  # those on cached features would hide the others
    stage.add(runs, counted, speed.run(epochs, train, val))


def _explore(stage: StageEstimate, plan: Plan, pace: Pace, standing: Standing) -> float:
    """Add what is left to explore; how many proposed trials will have run to their end."""
    epochs = plan.config_of({}).epochs
    names = {record.id for record in standing.records} | {job.id for job, _ in standing.running}
    first = [] if standing.explored else [job for job in plan.first_jobs() if job.id not in names]
    for job in (job for job in first if job.arms):
        _add(stage, plan, pace, cost_key(job.config.flat()), job.config.epochs)
    arms = [job for job in first if job.arms and LINEAR not in job.arms]  # the linear one counts for no trial
    new = 0 if standing.explored else max(plan.trials - standing.proposed - len(arms), 0)
    mean, ends = _stopped(plan, standing, new)
    _add(stage, plan, pace, LIKELY, mean, new)
    if new:
        stage.longest = max(stage.longest, pace.of(*pace.sample).run(epochs, plan.task.train, plan.task.val))
    for job, through in standing.running:
        if job.stage == EXPLORE:
            left = max((job.config.epochs if job.arms else mean or epochs) - through, 1)
            _add(stage, plan, pace, cost_key(job.config.flat()), left)
    return ends + sum(r.stage == EXPLORE and r.status == COMPLETE and not r.arms for r in standing.records)


def _stopped(plan: Plan, standing: Standing, new: int) -> tuple[float, float]:
    """Epochs per proposed trial, and how many of them run to their end, under the search's stopping rule.

    Played with random ranks: the rule ends trials as it would if none were likelier to be good than another.
    """
    if not new:
        return 0.0, 0.0
    count = max(PLAYED // (new + len(standing.records)), 3)
    plays = [_play(plan, standing, new, random.Random(seed)) for seed in range(count)]
    return statistics.fmean(ran for ran, _ in plays) / new, statistics.fmean(ended for _, ended in plays)


def _play(plan: Plan, standing: Standing, new: int, draw: random.Random) -> tuple[int, int]:
    """Epochs of the new trials, and how many of them ran to their end."""
    default = plan.config_of({})
    stops = rule(plan.config.explore.stopping, default.epochs, default.optim.warmup_epochs).stops
    explored = sorted((r for r in standing.records if r.stage == EXPLORE), key=lambda record: record.score)
    for place, record in enumerate(explored):
        for epoch in record.epochs:
            stops(record.id, epoch.epoch + 1, (place + draw.random()) / len(explored))
    for arm in [] if explored else plan.arms():  # which nothing stops
        rank = draw.random()
        for epochs in range(1, default.epochs + 1):
            stops(arm, epochs, rank)
    ran = ended = 0
    for number in range(new):
        rank, epochs = draw.random(), 1
        while not stops(f"played-{number}", epochs, rank) and epochs < default.epochs:
            epochs += 1
        ran, ended = ran + epochs, ended + (epochs == default.epochs)
    return ran, ended


def _cut(stage: StageEstimate, workers: int, asked: ExploreConfig, gpus: float, standing: Standing) -> None:
    """Shorten exploring to its hours."""
    limits = [3600 * asked.hours] if asked.hours is not None else []
    if asked.gpu_hours is not None and gpus:
        limits.append(3600 * asked.gpu_hours / (gpus * workers))
    left = max(min(limits, default=float("inf")) - standing.spent, 0.0)
    wall = stage.wall(workers)
    if wall > left:
        part = left / wall
        stage.epochs, stage.busy, stage.longest = part * stage.epochs, part * stage.busy, part * stage.longest


def _confirm(stage: StageEstimate, plan: Plan, pace: Pace, standing: Standing, complete: float) -> None:
    """Add what the confirm stage has left: the arms whose students differ, the best k, and the winner's twin."""
    if standing.winner or not plan.config.confirm.folds:
        return
    folds = plan.config.confirm.folds
    begun = Counter(record.contender for record in standing.records if record.stage == CONFIRM)
    begun += Counter(job.contender for job, _ in standing.running if job.stage == CONFIRM)
    probes = plan.linear_probes()[:1]
    of_probes = sum(number for name, number in begun.items() if str(name).startswith(f"arm-{LINEAR}-"))
    others = begun.total() - of_probes
    for job in _confirmed_arms(plan):
        others -= begun[job.id]
        left = max(RACED * folds - begun[job.id], 0.0)
        _add(stage, plan, pace, cost_key(job.config.flat()), job.config.epochs, left)
    for probe in probes:
        _add(stage, plan, pace, cost_key(probe.flat()), probe.epochs, max(RACED * folds - of_probes, 0.0))
    twin = pace.taught if plan.explores else 0.0  # that of an arm is an arm
    runs = folds * (RACED * min(plan.config.confirm.top_k, complete) + twin) - others
    _add(stage, plan, pace, LIKELY, plan.config_of({}).epochs, max(runs, 0.0))


def _confirmed_arms(plan: Plan) -> list[Job]:
    """Those with a student of their own; without drop-path no_distill has that of alone."""
    arms = [job for job in plan.first_jobs() if job.arms and LINEAR not in job.arms]
    return [job for job in arms if NO_DISTILL not in job.arms or job.config.model.drop_path]


def _finalists(plan: Plan) -> int:
    """Configs that go through the final run: the arms, and where more is explored the winner and its twin."""
    arms = {job.config.updated({"seed": plan.seed}) for job in plan.arm_finals()}
    return len(arms) + bool(plan.linear_probes()) + 2 * plan.explores


def _final(stage: StageEstimate, plan: Plan, pace: Pace, standing: Standing) -> None:
    """Add what the final run has left: the arms, the winner and its twin, once per seed."""
    begun = {record.id for record in standing.records} | {job.id for job, _ in standing.running}
    probes = [job for probe in plan.linear_probes()[:1] for job in plan.finals(LINEAR, probe, (LINEAR,))]
    jobs = [job for job in (*plan.arm_finals(), *probes) if job.id not in begun]
    configs = [job.config for job in jobs]
    if standing.winner:
        done = _final_configs(standing)
        pair = {standing.winner, standing.winner.without_teacher()}
        left = [job.config for config in pair for job in plan.finals("", config) if job.config not in done]
        configs += [config for config in left if config not in configs]
    for config in configs:
        _add(stage, plan, pace, cost_key(config.flat()), config.epochs, final=True)
    if not standing.winner and plan.explores:  # else it is an arm, and counted
        runs = plan.config.final.seeds * (1 + pace.taught)
        _add(stage, plan, pace, LIKELY, plan.config_of({}).epochs, runs, final=True)


def _final_configs(standing: Standing) -> list[RunConfig]:
    done = [RunConfig.from_flat(record.config) for record in standing.records if record.stage == FINAL]
    return done + [job.config for job, _ in standing.running if job.stage == FINAL]


def measured(plan: Plan, records: Sequence[TrialRecord]) -> Pace | None:
    """The pace that trials have shown; None before the first has.

    What a worker computes once and keeps, as the features under a linear head, is paid by its first trial of that kind;
    once later ones have shown what a run takes beside its epochs, they alone count.
    """
    by_key: dict[Key, list[Speed]] = {}
    later: dict[Key, list[float]] = {}
    shown = [record for record in records if record.stage in (EXPLORE, CONFIRM) and record.epochs]
    kept = set()  # what workers have, by worker, backbones and kind
    for record in shown:
        speed = Speed.shown(record.epochs, plan.task.train, plan.task.val, record.set_up_seconds)
        key = cost_key(record.config)
        by_key.setdefault(key, []).append(speed)
        once = (record.worker, *key[:3])
        if once in kept:
            later.setdefault(key, []).append(speed.beside)
        kept.add(once)
    known = {key: Speed.mean(speeds) for key, speeds in by_key.items()}
    known |= {key: replace(known[key], beside=statistics.fmean(beside)) for key, beside in later.items()}
    proposed = [cost_key(record.config) for record in shown if not record.arms and record.stage == EXPLORE]
    return Pace(known, proposed or sample_of(plan)) if known else None
