"""Proposes the trials of every stage to Ray Tune, hears how each went, and keeps the record."""

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
import ray
from optuna.trial import TrialState
from ray.tune.search import Searcher

from idat_tune import features, predictions
from idat_tune.interrupts import Interrupts
from idat_tune.journal import COMPLETE, EXPLORE, FAILED, STOPPED, TEST, Decision, Journal, TrialRecord
from idat_tune.journal.state import ENDED, OPENED, WINNER
from idat_tune.metrics import EpochMetrics, score
from idat_tune.search.budget import Budget
from idat_tune.search.callback import Callback
from idat_tune.search.confirm import config_of
from idat_tune.search.live import OF_DEFAULT, RETRIES, Live
from idat_tune.search.manifest import Manifest
from idat_tune.search.placing import Placing
from idat_tune.search.plan import DEFAULT, LINEAR, Job, Plan
from idat_tune.search.proposing import Proposer
from idat_tune.search.sampler import new_study
from idat_tune.search.scheduler import METRIC, Stopper
from idat_tune.search.stages import Propose, is_optional, next_step, students, winner
from idat_tune.search.stopping import rule
from idat_tune.search.tracked import Tracked
from idat_tune.search.trained import is_kept, keep_trained, trained_file
from idat_tune.space import distribution
from idat_tune.worker.pool import Pool
from idat_tune.worker.seat import GONE
from idat_tune.worker.trial import FAULT


def _remembered(method: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the first exception that a method of the searcher raises; from then on it raises nothing but that.

    Tune takes the first for a failure of the trial, and tells of the trial once more.
    """

    @functools.wraps(method)
    def remembering(self: "StagedSearcher", *args: Any, **named: Any) -> Any:
        if self.failure:
            raise self.failure
        try:
            return method(self, *args, **named)
        except Exception as failure:
            self.failure = failure
            raise

    return remembering


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
        self.placing = Placing(plan, journal, pool, self.budget.clock)
        self.distributions = {param.label: distribution(param.domain) for param in plan.space.params}
        self.study = new_study(plan.config.explore.sampler, plan.seed, plan.space)
        for record in journal.of(EXPLORE):
            self._replay(record)
        self.explored = {config_of(record) for record in journal.of(EXPLORE)}  # which are not proposed again
        self.proposer = Proposer(plan, self.study)
        self.waiting: deque[Live] = deque()  # for a worker, once more or for the first time
        self.live: dict[str, Live] = {}
        self._nothing_since: tuple[int, int] | None = None  # lines and running trials when nothing was left to start
        self.finished = False  # every stage is through
        self.failure: Exception | None = None  # the first that Tune was given, which hides it behind later ones
        self.scheduler = Stopper(rule(plan.config.explore.stopping, *self._schedule()), journal)

    def _schedule(self) -> tuple[int, int]:
        default = self.plan.config_of({})
        return default.epochs, default.optim.warmup_epochs

    @_remembered
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial, None to be asked again later, or FINISHED."""
        self.interrupts.check()
        next_up = self._next()
        if next_up is None:
            self.finished = not self.live
            return Searcher.FINISHED if self.finished else None
        next_up.place = self.placing.find(next_up, self.live.values(), self.waiting)
        if next_up.place is None:
            self.waiting.appendleft(next_up)
            return None
        next_up.started, next_up.began = self.budget.clock(), self.journal.clock()
        self.live[trial_id] = next_up
        self.budget.note(self._exploring())
        self.tracker.log_start(next_up.job, next_up.began)
        self.callback.on_trial_start(next_up.job)
        return {**self._payload(next_up.job), "worker": next_up.place.worker, "key": trial_id}

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
                found = None if self._may_end(exhausted=False) else self._propose()
                if found:
                    return found
                self._may_end(exhausted=True)
            elif not is_optional(step) or not self._may_end(exhausted=False):
                return Live(step, retries=OF_DEFAULT if self._is_default(step) else RETRIES)
        return None

    def _is_default(self, job: Job) -> bool:
        """Whether a run is one of the default's, in any stage."""
        return DEFAULT in job.arms or job.contender == f"arm-{DEFAULT}"

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
        probes = sum(live.job.stage == EXPLORE and LINEAR in live.job.arms for live in self.live.values())
        limit = self.journal.state.ended_by or self.budget.ended_by(exhausted, probes)
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
            "contender": job.contender,
            "config": job.config.flat(),
            "weights": list(self.manifest.content["weights"].items()),
        }
        if job.stage == TEST:
            payload["students"] = {r.id: self._finalist(r) for r in students(self.plan, self.journal)}
        return payload

    def _finalist(self, record: TrialRecord) -> dict[str, Any]:
        """A final run as the test takes it; tensors as references, since Tune keeps copies of what is in a payload."""
        teacher = trained_file(self.plan, f"{record.id}.teacher")
        return {
            "config": dict(record.config),
            "contender": record.contender,
            "state": ray.put(trained_file(self.plan, record.id).read_bytes()),
            "teacher": ray.put(teacher.read_bytes()) if is_kept(teacher) else None,
        }

    def _exploring(self) -> int:
        return sum(live.job.stage == EXPLORE for live in self.live.values())

    def _propose(self) -> Live | None:
        """A trial of something new; None where nothing is left."""
        number = self._free_number()
        running = {live.job.config for live in self.live.values()}
        found = self.proposer.propose(number, self.explored | running)
        return found and Live(Job(_trial_name(number), EXPLORE, (), found[1]), found[0])

    def _free_number(self) -> int:
        """The first that no trial has; one that a restart cut off is proposed again under its number."""
        taken = {record.id for record in self.journal.records} | {live.job.id for live in self.live.values()}
        return next(number for number in range(10**9) if _trial_name(number) not in taken)

    @_remembered
    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch of a running trial."""
        self.interrupts.check()
        live = self.live[trial_id]
        epoch = self._hear(live, result)
        if epoch is None:
            return
        self._report(live, epoch.epoch, result["score"])
        self.budget.note(self._exploring())
        self.tracker.log_epoch(live.job.id, result.get("set_up_seconds", 0.0), epoch)
        self.callback.on_epoch_end(live.job, epoch)

    def _hear(self, live: Live, result: dict[str, Any]) -> EpochMetrics | None:
        """Take a result in; with the first it shows when its worker began, which may just have been starting."""
        epoch = live.hear(result)
        if epoch and len(live.epochs) == 1:
            took = result.get("set_up_seconds", 0.0) + epoch.seconds
            live.started = max(live.started, self.budget.clock() - took)
        return epoch

    def _report(self, live: Live, epoch: int, rank: float) -> None:
        if live.proposal is not None and epoch > live.reported:
            live.proposal.report(rank, epoch)
            live.reported = epoch

    @_remembered
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended: finished, stopped early, failed, died with its worker, or cut off with the search.

        A trial whose worker died begins again at another, up to three times, and one of the default up to ten; where it
        had no part in it, as its machine was lost, or could train nothing, that does not count.
        """
        live = self.live.pop(trial_id)
        self._nothing_since = None
        if error and live.place:
            self.pool.leave(live.place.worker, trial_id)
        self.budget.note(self._exploring())
        if result and result.get("status") and (epoch := self._hear(live, result)):
            self.callback.on_epoch_end(live.job, epoch)
        if error or live.last.get("status") in (GONE, FAULT):
            self.interrupts.check()  # the worker may have been told to stop too, which is no result
            spared = not error and self._replaced(live)
            if spared or not live.last_chance:
                self.waiting.appendleft(live.again(spared))
                return
        status, reason = self._status(trial_id, live, error)
        if status is None:
            return  # cut off by an interrupt: not a result, it runs again after a resume
        record = replace(self._record(live), status=status, reason=reason)
        if "state" in live.last:
            keep_trained(self.plan, live.job.id, live.last["state"])
            if live.last.get("teacher_state"):
                keep_trained(self.plan, f"{live.job.id}.teacher", live.last["teacher_state"])
        for trial, said in live.last.get("predictions", ()):
            predictions.keep(self.plan.folder, trial, said)
        if "features" in live.last:
            features.keep(self.plan.folder, live.job.id, live.last["features"])
        self.journal.append(record)
        if record.stage == EXPLORE:
            self.explored.add(live.job.config)
        self._tell(live, record)
        self.tracker.log_trial(record)
        self.callback.on_trial_end(record)

    def _replaced(self, live: Live) -> bool:
        """Have another worker for the one that a trial was at; whether the trial had no part in its end."""
        assert live.place is not None
        reason, unfit = str(live.last.get("reason")), bool(live.last.get("unfit"))
        spared = self.pool.replace(live.place.worker, live.stalled or reason, unfit)
        return spared or not live.last.get("begun", True)

    @_remembered
    def look(self) -> None:
        """Hear of workers that came or could not, though nobody asks for one, and have as many as there is work for."""
        self.pool.look()
        self.placing.follow(self.live.values(), self.waiting)

    def stalled(self, live: Live) -> None:
        """A running trial made no progress, and its worker is about to be ended."""
        again = "" if live.last_chance else "; it is tried again"
        live.stalled = f"its worker made no progress for {live.silent:.0f} s"
        self.callback.on_remark(f"{live.job.id}: {live.stalled}, and is ended{again}")

    def _status(self, trial_id: str, live: Live, error: bool) -> tuple[str | None, str | None]:
        status = live.last.get("status")
        if error or status == GONE:
            return FAILED, live.stalled or f"its worker died, {live.had} times over"
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
            began=live.began,
            seconds=self.budget.clock() - live.started,
            set_up_seconds=live.last.get("set_up_seconds", 0.0),
            trainable_params=live.last.get("trainable_params"),
            worker=live.last.get("worker"),
            node=live.last.get("node"),
            weights=dict(live.last.get("weights", ())),
            contender=live.job.contender,
            fold=live.job.fold,
            hits=live.last.get("hits"),
            tested={name: (accuracy, loss) for name, accuracy, loss, _ in live.last.get("tested", ())},
            test_hits={name: hits for name, _, _, hits in live.last.get("tested", ()) if hits},
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
