"""Proposes the trials of every stage to Ray Tune, hears how each went, and keeps the record."""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
import ray
from optuna.trial import TrialState
from ray.tune.search import Searcher

from idat_tune.interrupts import Interrupts
from idat_tune.journal import COMPLETE, EXPLORE, FAILED, STOPPED, TEST, Decision, Journal, TrialRecord
from idat_tune.journal.state import ENDED, OPENED, WINNER
from idat_tune.metrics import EpochMetrics, score
from idat_tune.search.budget import Budget
from idat_tune.search.callback import Callback
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import Job, Plan
from idat_tune.search.sampler import distribution, exhausted, new_study, reseed, suggest
from idat_tune.search.scheduler import METRIC, Stopper
from idat_tune.search.stages import Propose, is_optional, next_step, students, winner
from idat_tune.search.stopping import rule
from idat_tune.search.tracked import Tracked
from idat_tune.search.trained import keep_trained, trained_file
from idat_tune.space import Domain
from idat_tune.worker.pool import Place, Pool
from idat_tune.worker.seat import GONE
from idat_tune.worker.trial import FAULT

RETRIES = 2  # of a trial whose worker died; one that failed by itself would fail again


@dataclass
class Live:
    """A trial that is running, or about to."""

    job: Job
    proposal: optuna.trial.Trial | None = None  # what the sampler calls it; None if it did not propose it
    deaths: int = 0  # workers that it lost so far
    begun: bool = False  # whether it ran before, on a worker that it lost
    place: Place | None = None  # once it is running
    reported: int = -1  # newest epoch that the sampler was told of
    started: float = 0.0  # by the clock of the budget
    epochs: list[EpochMetrics] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)  # its newest result
    silent: float = 0.0  # seconds since then, as far as they were watched
    waits: list[float] = field(default_factory=list)  # seconds to each result
    stalled: str | None = None  # why it was taken for hung

    def hear(self, result: dict[str, Any]) -> EpochMetrics | None:
        """Take a result in."""
        self.last = result
        self.waits.append(self.silent)
        self.silent = 0.0
        if "lr" not in result:  # a failure, or the test, which have no metrics of epochs
            return None
        epoch = EpochMetrics.from_dict(result)
        self.epochs.append(epoch)
        return epoch

    def again(self, spared: bool = False) -> "Live":
        """The same trial from its beginning, after its worker died; once more only if it hung, which takes long.

        `spared`: whether the trial had no part in it.
        """
        deaths = self.deaths if spared else RETRIES if self.stalled else self.deaths + 1
        return Live(self.job, self.proposal, deaths, True, reported=self.reported, stalled=self.stalled)


class StagedSearcher(Searcher):
    """Ray Tune's view of a search: explore, confirm, final run, test.

    One Tune run goes through all stages, so that workers with their imports stay alive from the first trial to
    the last. The study lives in memory only: the journal is the truth, and is replayed into a new study.
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        manifest: Manifest,
        tracker: Tracked,
        callback: Callback,
        pool: Pool,
        budget: Budget | None = None,
        interrupts: Interrupts | None = None,
    ):
        super().__init__(metric=METRIC, mode="max")
        self.plan = plan
        self.journal = journal
        self.manifest = manifest
        self.tracker = tracker
        self.callback = callback
        self.interrupts = interrupts or Interrupts()
        self.pool = pool
        self.budget = budget or Budget(plan, journal)
        self.distributions = {param.label: distribution(param.domain) for param in plan.space.params}
        self.study = new_study(plan.config.explore.sampler, plan.seed, plan.space)
        for record in journal.of(EXPLORE):
            self._replay(record)
        self.waiting: deque[Live] = deque()  # for a worker, once more or for the first time
        self.live: dict[str, Live] = {}
        self._nothing_since: tuple[int, int] | None = None  # lines and running trials when nothing was left to start
        self.finished = False  # every stage is through
        self.scheduler = Stopper(rule(plan.config.explore.stopping, *self._schedule()), journal)

    def _schedule(self) -> tuple[int, int]:
        default = self.plan.config_of({})
        return default.epochs, default.optim.warmup_epochs

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial, None to be asked again later, or FINISHED."""
        self.interrupts.check()
        next_up = self._next()
        if next_up is None:
            self.finished = not self.live
            return Searcher.FINISHED if self.finished else None
        taken = [live.place for live in self.live.values() if live.place]
        # Its last chance is its own: until then it may have died of another's fault.
        next_up.place = self.pool.place(taken, next_up.deaths == RETRIES)
        if next_up.place is None:
            self.waiting.appendleft(next_up)
            return None
        next_up.started = self.budget.clock()
        self.live[trial_id] = next_up
        self.budget.note(self._exploring())
        self.callback.on_trial_start(next_up.job)
        return {**self._payload(next_up.job), "worker": next_up.place.worker}

    def _next(self) -> Live | None:
        """The next trial; None while it depends on one that is running, and at the end."""
        while self.waiting:
            live = self.waiting.popleft()
            if live.begun or not is_optional(live.job) or not self._may_end(exhausted=False):
                return live
        now = (self.journal.length, len(self.live))
        while now != self._nothing_since:
            step = next_step(self.plan, self.journal, [live.job for live in self.live.values()])
            if step is None:
                self._nothing_since = now
            elif isinstance(step, Decision):
                self._decide(step)
            elif isinstance(step, Propose):
                if not self._may_end(self._exhausted()):
                    return self._propose()
            elif not is_optional(step) or not self._may_end(exhausted=False):
                return Live(step)
        return None

    def _decide(self, decision: Decision) -> None:
        """Write it down before anything follows from it."""
        self.journal.decide(decision.kind, **decision.about)
        chosen = winner(self.plan, self.journal)
        if decision.kind == WINNER and chosen:
            self.callback.on_winner(chosen)
        if decision.kind == OPENED:
            self.callback.on_test_open(len(students(self.plan, self.journal)), len(self.journal.state.openings))

    def _may_end(self, exhausted: bool) -> bool:
        """Whether exploring ends here, by a limit of the budget; told and written down once."""
        limit = self.journal.state.ended_by or self.budget.ended_by(exhausted)
        if limit and self.journal.state.ended_by is None:
            self.journal.decide(ENDED, by=limit)
            self.callback.on_explore_end(limit)
        return limit is not None

    def _payload(self, job: Job) -> dict[str, Any]:
        """What goes to the worker."""
        payload = {
            "id": job.id,
            "stage": job.stage,
            "arms": list(job.arms),
            "fold": job.fold,
            "config": job.config.flat(),
            "weights": list(self.manifest.content["weights"].items()),
        }
        if job.stage == TEST:
            payload["students"] = {
                # As references: Tune keeps copies of what is in a payload.
                record.id: (dict(record.config), ray.put(trained_file(self.plan, record.id).read_bytes()))
                for record in students(self.plan, self.journal)
            }
        return payload

    def _exhausted(self) -> bool:
        """Whether there is nothing left to propose."""
        return exhausted(self.study) or not self.plan.space.params

    def _exploring(self) -> int:
        return sum(live.job.stage == EXPLORE for live in self.live.values())

    def _propose(self) -> Live:
        number = self._free_number()
        reseed(self.study, self.plan.config.explore.sampler, self.plan.seed, number, self.plan.space)
        proposal = self.study.ask()

        def ask(label: str, domain: Domain) -> Any:
            return suggest(proposal, label, domain)

        config = self.plan.config_of(self.plan.space.propose(ask))
        return Live(Job(_trial_name(number), EXPLORE, (), config), proposal)

    def _free_number(self) -> int:
        """The first that no trial has; one that a restart cut off is proposed again under its number."""
        taken = {record.id for record in self.journal.records} | {live.job.id for live in self.live.values()}
        return next(number for number in range(10**9) if _trial_name(number) not in taken)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch of a running trial."""
        self.interrupts.check()
        live = self.live[trial_id]
        epoch = live.hear(result)
        if epoch is None:
            return
        self._report(live, epoch.epoch, result["score"])
        self.budget.note(self._exploring())
        self.callback.on_epoch_end(live.job, epoch)

    def _report(self, live: Live, epoch: int, rank: float) -> None:
        if live.proposal is not None and epoch > live.reported:
            live.proposal.report(rank, epoch)
            live.reported = epoch

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended: finished, stopped early, failed, died with its worker, or cut off with the search.

        A trial whose worker died begins again at another, up to three times; where it had no part in it, as its machine
        was lost, or could train nothing, that does not count.
        """
        live = self.live.pop(trial_id)
        self._nothing_since = None
        self.budget.note(self._exploring())
        if result and result.get("status") and (epoch := live.hear(result)):
            self.callback.on_epoch_end(live.job, epoch)
        if error or live.last.get("status") in (GONE, FAULT):
            self.interrupts.check()  # the worker may have been told to stop too, which is no result
            spared = not error and self._replaced(live)
            if spared or live.deaths < RETRIES:
                self.waiting.appendleft(live.again(spared))
                return
        status, reason = self._status(trial_id, live, error)
        if status is None:
            return  # cut off by an interrupt: not a result, it runs again after a resume
        record = replace(self._record(live), status=status, reason=reason)
        if "state" in live.last:
            keep_trained(self.plan, live.job.id, live.last["state"])
        self.journal.append(record)
        self._tell(live, record)
        self.tracker.log_trial(record)
        self.callback.on_trial_end(record)

    def _replaced(self, live: Live) -> bool:
        """Have another worker for the one that a trial was at; whether the trial had no part in its end."""
        assert live.place is not None
        reason, unfit = str(live.last.get("reason")), bool(live.last.get("unfit"))
        spared = self.pool.replace(live.place.worker, live.stalled or reason, unfit)
        return spared or not live.last.get("begun", True)

    def stalled(self, live: Live) -> None:
        """A running trial made no progress, and its worker is about to be ended."""
        again = "it is tried again" if live.deaths < RETRIES else "it has failed"
        live.stalled = f"its worker made no progress for {live.silent:.0f} s"
        self.callback.on_remark(f"{live.job.id}: {live.stalled}, and is ended; {again}")

    def _status(self, trial_id: str, live: Live, error: bool) -> tuple[str | None, str | None]:
        status = live.last.get("status")
        if error or status == GONE:
            return FAILED, live.stalled or f"its worker died, {RETRIES + 1} times over"
        if status in (FAULT, FAILED):
            return FAILED, live.last["reason"]
        if status == COMPLETE:
            return COMPLETE, None
        return (STOPPED, None) if trial_id in self.scheduler.stopped else (None, None)

    def _record(self, live: Live) -> TrialRecord:
        return TrialRecord(
            id=live.job.id,
            stage=live.job.stage,
            arms=live.job.arms,
            config=live.job.config.flat(),
            status=COMPLETE,
            labels=self.plan.space.labels_of(live.job.config.flat()),
            epochs=tuple(live.epochs),
            val_images=live.last.get("val_images", 0),
            seconds=self.budget.clock() - live.started,
            set_up_seconds=live.last.get("set_up_seconds", 0.0),
            trainable_params=live.last.get("trainable_params"),
            worker=live.last.get("worker"),
            node=live.last.get("node"),
            weights=dict(live.last.get("weights", ())),
            contender=live.job.contender,
            fold=live.job.fold,
            tested={name: (accuracy, loss) for name, accuracy, loss in live.last.get("tested", ())},
        )

    def _tell(self, live: Live, record: TrialRecord) -> None:
        """Let the sampler learn from a result; from a failure too, as from a very bad value."""
        if record.stage != EXPLORE:
            return
        if live.proposal is None:
            self._replay(record)
        elif record.status == STOPPED:
            if record.last is not None:
                self._report(live, record.last.epoch, record.score)
            self.study.tell(live.proposal, state=TrialState.PRUNED)
        else:
            self.study.tell(live.proposal, record.score)

    def _replay(self, record: TrialRecord) -> None:
        """Add a trial that the study did not ask for: an arm, or one of before a restart."""
        if record.labels is None:
            return
        ranks = {e.epoch: score(e.val_accuracy, e.val_loss, max(record.val_images, 1)) for e in record.epochs}
        pruned = record.status == STOPPED and bool(ranks)
        self.study.add_trial(
            optuna.trial.create_trial(
                params=dict(record.labels),
                distributions={label: self.distributions[label] for label in record.labels},
                intermediate_values=ranks,
                **({"state": TrialState.PRUNED} if pruned else {"value": record.score}),
            )
        )

    def __getstate__(self) -> dict[str, Any]:
        """Nothing goes into the state that Tune pickles for a restore of its own, which is never used."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search resumes from its journal."""


def _trial_name(number: int) -> str:
    return f"trial-{number:03d}"
