"""One search replayed: its sampler, stopping rule and race are the real ones, its runs are looked up."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from idat_tune import portfolio
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, Journal, TrialRecord
from idat_tune.metrics import EpochMetrics
from idat_tune.replay.nearest import Nearest
from idat_tune.replay.table import ARMS, VAL_IMAGES, Curves, RecordedRun, curves_of
from idat_tune.search.config import HALVING, TPE, ConfirmConfig, SearchConfig
from idat_tune.search.confirm import Confirmation
from idat_tune.search.plan import DEFAULT, Plan
from idat_tune.search.sampler import new_study, reseed, suggest
from idat_tune.search.stopping import ETA, RULES, Halving, Rule, grace
from idat_tune.space import Domain, Space, distribution


@dataclass(frozen=True)
class Explore:
    """How trials are proposed, and which end early."""

    sampler: str = TPE
    stopping: str = HALVING
    grace: int = 0  # epochs that every trial gets, for halving and median; 0 stands for a search's own
    eta: int = ETA  # for halving
    portfolio: bool = True  # whether starting configs follow the arms

    def rule(self, epochs: int, warmup_epochs: int) -> Rule:
        """Its stopping rule, for runs of so many epochs."""
        every = self.grace or grace(epochs, warmup_epochs)
        return Halving(epochs, every, self.eta) if self.stopping == HALVING else RULES[self.stopping](epochs, every)


@dataclass(frozen=True)
class Confirm:
    """How the winner is chosen: a race of the arms and the top k; with k = 0 the best explored trial is taken."""

    top_k: int = ConfirmConfig().top_k
    folds: int = 4  # one less than a search's default: of the five recorded, exploring takes one
    fewest: bool = False  # whether of those that are level with the best the one with the fewest parameters wins


@dataclass(frozen=True)
class Explored:
    """A trial of a replay that has ended."""

    config: str
    epochs: int  # that it ran
    score: float | None  # of its last epoch; None where it was stopped


@dataclass(frozen=True)
class Chosen:
    """What a replayed search came to."""

    config: str
    explored: int  # epochs
    confirmed: int  # epochs


class Benchmark:
    """A recorded task, ready to be searched."""

    def __init__(self, recordings: Iterable[RecordedRun], task: str, space: Space):
        self.task = task
        self.space = space
        self.curves = curves_of(recordings, task)
        missing = [arm for arm in ARMS if arm not in self.curves]
        if missing:
            raise BadInput(f"the table has no config '{missing[0]}' of task '{task}', which every search runs")
        first = next(iter(self.curves[DEFAULT].runs.values()))
        self._plans: dict[Confirm, Plan] = {}
        self._records: dict[tuple[str, str, int], TrialRecord] = {}
        self.folds = tuple(sorted(self.curves[DEFAULT].runs))
        self.epochs = len(first.val_accuracy)
        self.warmup_epochs = RunConfig.for_task(task, dict(space.fixed)).optim.warmup_epochs
        self.scores = {
            name: {fold: run.scores(self.epochs) for fold, run in curves.runs.items()}
            for name, curves in self.curves.items()
        }
        self.truth = {name: curves.truth for name, curves in self.curves.items()}
        self.labels = {name: self._labels(curves) for name, curves in self.curves.items()}
        self.nearest = Nearest(space, {n: labels for n, labels in self.labels.items() if n not in ARMS and labels})

    def _labels(self, curves: Curves) -> dict[str, Any] | None:
        return self.space.labels_of({**dict(self.space.fixed), **curves.point})

    @cached_property
    def starts(self) -> tuple[str, ...]:
        """The recorded configs of the task's portfolio."""
        wanted = [self._asked_for(point) for point in portfolio.starts(self.task)]
        return tuple(dict.fromkeys(self.nearest.of(labels, self.nearest.names) for labels in wanted))

    def plan(self, how: Confirm) -> Plan:
        """That of a search which confirms so."""
        if how not in self._plans:
            confirm = {"top_k": how.top_k, "folds": how.folds}
            self._plans[how] = Plan.checked(SearchConfig.of(self.task, name="replay", space=self.space, **confirm))
        return self._plans[how]

    def record(self, name: str, stage: str, fold: int) -> TrialRecord:
        """What a search would have recorded of a run; failed where it diverged or was not recorded."""
        key = name, stage, fold
        if key not in self._records:
            self._records[key] = self._recorded(*key)
        return self._records[key]

    def _recorded(self, name: str, stage: str, fold: int) -> TrialRecord:
        curves = self.curves.get(name)
        run = curves.runs[fold] if curves else None
        last = (_last(run),) if run and run.test_accuracy is not None else ()
        return TrialRecord(
            id=name,
            stage=stage,
            arms=(name,) if name in ARMS else (),
            config=self._flat(curves.point) if curves else {},
            status=COMPLETE if last else FAILED,
            epochs=last,
            val_images=VAL_IMAGES,
            trainable_params=curves.trainable_params if curves else None,
            contender=name,
        )

    def _flat(self, point: Mapping[str, Any]) -> dict[str, Any]:
        return RunConfig.for_task(self.task, {**dict(self.space.fixed), **point}).flat()

    def _asked_for(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A config's values by label, those it leaves open as the task has them."""
        flat = self._flat(point)
        keys = {param.label: param.key for param in self.space.params}
        labels: dict[str, Any] = {}

        def look_up(label: str, domain: Domain) -> Any:
            labels[label] = flat[keys[label]]
            return labels[label]

        self.space.propose(look_up)
        return labels


def _last(run: RecordedRun) -> EpochMetrics:
    """The last epoch of a run, as far as it is compared."""
    accuracy, loss = run.val_accuracy[-1], run.val_loss[-1]
    return EpochMetrics(len(run.val_accuracy) - 1, 0.0, 0.0, 0.0, None, None, accuracy, loss, None, 0.0, 0.0, None)


def explore(benchmark: Benchmark, how: Explore, fold: int, seed: int) -> Iterator[Explored]:
    """The trials of a search, one after the other, for as long as the caller takes them.

    Arms come first, then the starting configs, then what the sampler proposes, each moved to the nearest recorded
    config that was not tried yet. The sampler learns of that config, not of what it had proposed.
    """
    study = new_study(how.sampler, seed, benchmark.space)
    rule = how.rule(benchmark.epochs, benchmark.warmup_epochs)
    untried = dict.fromkeys(benchmark.nearest.names)
    starts = benchmark.starts if how.portfolio else ()
    for name in (*ARMS, *starts):
        untried.pop(name, None)
        scores = benchmark.scores[name][fold]
        epochs = _epochs(rule, name, scores, may_stop=name not in ARMS)
        _add(study, benchmark, name, scores[:epochs])
        yield _explored(name, epochs, scores)
    number = 0
    while untried:
        reseed(study, how.sampler, seed, number, benchmark.space)
        number += 1
        name = benchmark.nearest.of(_proposed(study, benchmark.space), untried)
        del untried[name]
        proposal = _as_recorded(study, benchmark, name)
        scores = benchmark.scores[name][fold]
        epochs = _epochs(rule, name, scores, may_stop=True)
        for epoch in range(epochs):
            proposal.report(scores[epoch], epoch)
        if epochs == benchmark.epochs:
            study.tell(proposal, scores[-1])
        else:
            study.tell(proposal, state=TrialState.PRUNED)
        yield _explored(name, epochs, scores)


def _epochs(rule: Rule, name: str, scores: Sequence[float], may_stop: bool) -> int:
    """How many epochs a trial runs; the rule hears of each."""
    for epochs, rank in enumerate(scores, start=1):
        if rule.stops(name, epochs, rank) and may_stop and epochs < len(scores):
            return epochs
    return len(scores)


def _explored(name: str, epochs: int, scores: Sequence[float]) -> Explored:
    return Explored(name, epochs, scores[-1] if epochs == len(scores) else None)


def _proposed(study: optuna.Study, space: Space) -> dict[str, Any]:
    """What the sampler proposes, by label; told as failed, from which it learns nothing."""
    proposal = study.ask()
    _ask_for(proposal, space)
    study.tell(proposal, state=TrialState.FAIL)
    return proposal.params


def _as_recorded(study: optuna.Study, benchmark: Benchmark, name: str) -> optuna.trial.Trial:
    """A proposal of a recorded config."""
    study.enqueue_trial(benchmark.labels[name] or {})
    proposal = study.ask()
    _ask_for(proposal, benchmark.space)
    assert proposal.params == benchmark.labels[name]
    return proposal


def _ask_for(proposal: optuna.trial.Trial, space: Space) -> None:
    space.propose(lambda label, domain: suggest(proposal, label, domain))


def _add(study: optuna.Study, benchmark: Benchmark, name: str, scores: Sequence[float]) -> None:
    """Tell the study of a trial that it did not propose, as a search does of arms and starting configs."""
    labels = benchmark.labels[name]
    if labels is None:
        return
    stopped = len(scores) < benchmark.epochs
    domains = {param.label: distribution(param.domain) for param in benchmark.space.params}
    study.add_trial(
        create_trial(
            params=labels,
            distributions={label: domains[label] for label in labels},
            intermediate_values=dict(enumerate(scores)),
            **({"state": TrialState.PRUNED} if stopped else {"value": scores[-1]}),
        )
    )


def choose(benchmark: Benchmark, trials: Sequence[Explored], fold: int, how: Confirm) -> Chosen:
    """The winner of explored trials: by a search's confirm stage on the folds that exploring did not see, or at once.

    Other than in a search, the winner's twin without a teacher fails, because it was not recorded.
    """
    complete = sorted((t for t in trials if t.score is not None), key=lambda t: t.score or 0.0, reverse=True)
    spent = sum(trial.epochs for trial in trials)
    if not how.top_k:
        return Chosen(complete[0].config, spent, 0)
    explored = [benchmark.record(trial.config, EXPLORE, fold) for trial in trials if trial.score is not None]
    confirmation = Confirmation(benchmark.plan(how), Journal.remembered(explored))
    # A rotation, so that over many replays every fold comes first equally often.
    start = benchmark.folds.index(fold) + 1
    others = (*benchmark.folds[start:], *benchmark.folds[: start - 1])
    runs = 0
    while (job := confirmation.next_job(())) is not None:
        assert job.contender is not None
        assert job.fold is not None
        record = benchmark.record(job.contender, CONFIRM, others[job.fold])
        runs += job.contender in benchmark.curves
        confirmation.hear(replace(record, fold=job.fold))
    choice = confirmation.choice()
    winner = DEFAULT if choice is None else choice.smallest if how.fewest else choice.winner
    return Chosen(winner, spent, runs * benchmark.epochs)


def replay(benchmark: Benchmark, how: Explore, seed: int, trials: int) -> tuple[int, list[Explored]]:
    """The fold that exploring sees in the replay of that number, and its trials."""
    fold = benchmark.folds[seed % len(benchmark.folds)]
    return fold, list(islice(explore(benchmark, how, fold, seed), trials))
