"""Proposes the trials of every stage to Ray Tune, hears how each went, and keeps the record."""

import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.trial import TrialState
from ray.tune.search import Searcher

from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, FINAL, STOPPED, TEST, Journal, TrialRecord
from idat_tune.metrics import EpochMetrics, score
from idat_tune.search.budget import Budget
from idat_tune.search.confirm import Confirmation, arms, best_explored, config_of, confirm_job, contender
from idat_tune.search.listener import Listener
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import DEFAULT, Job, Plan, Resources, jobs_of
from idat_tune.search.sampler import distribution, exhausted, new_study, reseed, suggest
from idat_tune.search.scheduler import METRIC, Stopper
from idat_tune.search.stopping import rule
from idat_tune.space import Domain
from idat_tune.tracking import Tracker

RETRIES = 2  # of a trial whose worker died; one that failed by itself would fail again


@dataclass
class Live:
    """A trial that is running, or about to."""

    job: Job
    proposal: optuna.trial.Trial | None = None  # what the sampler calls it; None if it did not propose it
    deaths: int = 0  # workers that it lost so far
    reported: int = -1  # newest epoch that the sampler was told of
    started: float = field(default_factory=time.perf_counter)
    epochs: list[EpochMetrics] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)  # its newest result

    def hear(self, result: dict[str, Any]) -> EpochMetrics | None:
        """Take a result in."""
        self.last = result
        if "lr" not in result:  # a failure, or the test, which have no metrics of epochs
            return None
        epoch = EpochMetrics.from_dict(result)
        self.epochs.append(epoch)
        return epoch

    def again(self) -> "Live":
        """The same trial from its beginning, after its worker died."""
        return Live(self.job, self.proposal, self.deaths + 1, self.reported)


class Conductor(Searcher):
    """Ray Tune's view of a search: explore, confirm, final run, test.

    One Tune run goes through all stages, so that workers with their imports stay alive from the first trial to
    the last. The study lives in memory only: the journal is the truth, and is replayed into a new study.
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        manifest: Manifest,
        tracker: Tracker,
        listener: Listener,
        budget: Budget | None = None,
    ):
        super().__init__(metric=METRIC, mode="max")
        self.plan = plan
        self.journal = journal
        self.manifest = manifest
        self.tracker = tracker
        self.listener = listener
        self.budget = budget or Budget(plan, Resources(), journal, manifest)
        self.ended_by: str | None = None  # what of the budget ended exploring, in this session
        self.distributions = {param.label: distribution(param.domain) for param in plan.space.params}
        self.study = new_study(plan.sampler, plan.seed, plan.space)
        for record in journal.of(EXPLORE):
            self._replay(record)
        first = [] if manifest.content["winner"] else plan.first_jobs()
        self.queue = deque(Live(job) for job in self._not_done(first))
        self.gap_jobs = deque(self._not_done(self._known_early()))
        self.confirmation: Confirmation | None = None  # from the end of exploring on
        self.winner_chosen = self.tested = False
        self.live: dict[str, Live] = {}
        self.finished = False  # every stage is through
        self.scheduler = Stopper(rule(plan.stopping, *self._schedule()), journal)

    def _schedule(self) -> tuple[int, int]:
        default = self.plan.config_of({})
        return default.epochs, default.optim.warmup_epochs

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial, None to be asked again later, or FINISHED."""
        next_up = self._next()
        if next_up is None:
            self.finished = not self.live
            return Searcher.FINISHED if self.finished else None
        next_up.started = time.perf_counter()
        self.live[trial_id] = next_up
        self.budget.note(self._exploring())
        self.listener.trial_started(next_up.job)
        return self._payload(next_up.job)

    def _next(self) -> Live | None:
        """The next trial; None while it depends on one that is running, and at the end."""
        if not self.queue and self._may_propose():
            return self._propose()
        if not self.queue:
            self.queue.extend(Live(job) for job in self._next_jobs())
        return self.queue.popleft() if self.queue else None

    def _known_early(self) -> list[Job]:
        """What will be run whoever wins: the default on all splits, and the final runs of default and alone."""
        default = jobs_of(EXPLORE, "arm", {DEFAULT: self.plan.config_of({})})[0]
        confirms = [confirm_job(default.id, fold, default.config) for fold in range(self.plan.folds)]
        return ([] if self.manifest.content["winner"] else confirms) + self.plan.arm_finals()

    def _next_jobs(self) -> list[Job]:
        """What follows exploring: the confirm stage, the winner's final run, the arms', the test.

        What waits for no decision fills the gaps in which the last trials of a stage run: a worker that waits is one
        that Tune ends, and a new one has all its imports before it.
        """
        if not self._running(EXPLORE) and not self.winner_chosen:
            decided = self._decide()
            if decided:
                return decided
        if self.gap_jobs:
            return [self.gap_jobs.popleft()]
        return [] if self.live else self._test_jobs()

    def _running(self, stage: str) -> list[Job]:
        return [live.job for live in self.live.values() if live.job.stage == stage]

    def _decide(self) -> list[Job]:
        """The next run of the confirm stage, or, when nothing of it is left, the winner's final runs."""
        if self.manifest.content["winner"] is None and self.plan.folds:
            if self.confirmation is None:
                self.manifest.set("explored", True)
                self.confirmation = Confirmation(self.plan, self.journal)
                self.gap_jobs = deque(job for job in self.gap_jobs if job.stage != CONFIRM)
            running = self._running(CONFIRM)
            job = self.confirmation.next_job([(job.contender, job.fold) for job in running])
            if job or running:
                return [job] if job else []
        self.winner_chosen = True
        return self._winner_jobs()

    def _payload(self, job: Job) -> dict[str, Any]:
        """What goes to the worker."""
        payload = {
            "id": job.id,
            "stage": job.stage,
            "arms": list(job.arms),
            "fold": job.fold,
            "config": job.config.flat(),
        }
        if job.stage == TEST:
            payload["students"] = {
                # As references: Tune keeps copies of what is in a payload.
                record.id: (dict(record.config), ray.put(trained_file(self.plan, record.id).read_bytes()))
                for record in self._students()
            }
        return payload

    def _students(self) -> list[TrialRecord]:
        """The finished final runs of the winner, the default and alone; none if the winner has none."""
        winner = self.manifest.winner(self.journal)
        if winner is None:
            return []
        ours = {job.config for job in self.plan.finals(winner.id, config_of(winner))}
        wanted = ours | {job.config for job in self.plan.arm_finals()}
        done = [record for record in self.journal.of(FINAL) if record.status == COMPLETE]
        return [r for r in done if config_of(r) in wanted] if any(config_of(r) in ours for r in done) else []

    def _may_propose(self) -> bool:
        """Whether exploring goes on; tells once what ended it."""
        undecided = not self.manifest.content["explored"] and self.manifest.content["winner"] is None
        if undecided and self.ended_by is None:
            self.ended_by = self.budget.ended_by(exhausted(self.study) or not self.plan.space.params)
            if self.ended_by:
                self.manifest.set("ended_by", self.ended_by)
                self.listener.exploring_ended(self.ended_by)
        return undecided and self.ended_by is None

    def _exploring(self) -> int:
        return len(self._running(EXPLORE))

    def _propose(self) -> Live:
        number = self._free_number()
        reseed(self.study, self.plan.sampler, self.plan.seed, number, self.plan.space)
        proposal = self.study.ask()

        def ask(label: str, domain: Domain) -> Any:
            return suggest(proposal, label, domain)

        config = self.plan.config_of(self.plan.space.propose(ask))
        return Live(Job(_trial_name(number), EXPLORE, (), config), proposal)

    def _free_number(self) -> int:
        """The first that no trial has; one that a restart cut off is proposed again under its number."""
        taken = {record.id for record in self.journal.records} | {live.job.id for live in self.live.values()}
        return next(number for number in range(10**9) if _trial_name(number) not in taken)

    def _winner_jobs(self) -> list[Job]:
        """Freeze the winner; what of its final run is not done yet."""
        winner = self.manifest.winner(self.journal) or self._winner()
        if winner is None:
            self.gap_jobs.clear()  # every config failed, so these would too
            return []
        self.manifest.set("winner", winner.id)
        self.listener.winner_chosen(winner)
        return self._not_done(self.plan.winner_finals(winner.id, config_of(winner)))

    def _winner(self) -> TrialRecord | None:
        if self.confirmation is None:
            return best(self.journal)
        choice = self.confirmation.choice()
        return contender(self.journal, choice.winner, self.plan.seed) if choice else None

    def _test_jobs(self) -> list[Job]:
        """Open the test split, if the winner has a student that was not tested before, or it is asked for anew."""
        students = self._students()
        opened, finished = len(self.manifest.test_openings), len(self.journal.of(TEST))
        known = opened > 0 and opened == finished
        if self.tested or not students or (known and not self.plan.reopen_test):
            return []
        self.tested = True
        if opened == finished:  # otherwise a restart goes on with an opening that a crash cut short
            self.manifest.open_test()
            self.listener.test_opened(len(students))
        winner = self.manifest.winner(self.journal)
        return [self.plan.test_job(len(self.manifest.test_openings), config_of(winner))] if winner else []

    def _not_done(self, jobs: list[Job]) -> list[Job]:
        """Those that must run. A config that failed stays failed; a failed final run or test is tried again."""
        done = {r.id for r in self.journal.records if r.stage in (EXPLORE, CONFIRM) or r.status == COMPLETE}
        return [job for job in jobs if job.id not in done]

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch of a running trial."""
        live = self.live[trial_id]
        epoch = live.hear(result)
        if epoch is None:
            return
        self._report(live, epoch.epoch, result["score"])
        self.budget.note(self._exploring())
        self.listener.epoch_done(live.job, epoch)

    def _report(self, live: Live, epoch: int, rank: float) -> None:
        if live.proposal is not None and epoch > live.reported:
            live.proposal.report(rank, epoch)
            live.reported = epoch

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended: finished, stopped early, failed, died with its worker, or cut off with the search.

        Trials whose worker died come back through our own queue, because Tune tries none again that died while it
        was being handed to a reused worker.
        """
        live = self.live.pop(trial_id)
        self.budget.note(self._exploring())
        if error and live.deaths < RETRIES:
            self.queue.appendleft(live.again())
            return
        if result and result.get("status"):
            live.hear(result)
        status, reason = self._status(trial_id, live, error)
        if status is None:
            return  # cut off by an interrupt: not a result, it runs again after a resume
        record = replace(self._record(live), status=status, reason=reason)
        if "state" in live.last:
            trained = trained_file(self.plan, live.job.id)
            trained.parent.mkdir(exist_ok=True)
            trained.write_bytes(live.last["state"])
        self.journal.append(record)
        self._tell(live, record)
        if self.confirmation and record.stage == CONFIRM:
            self.confirmation.hear(record)
        self.tracker.log_trial(record)
        self.listener.trial_ended(record)

    def _status(self, trial_id: str, live: Live, error: bool) -> tuple[str | None, str | None]:
        status = live.last.get("status")
        if error:
            return FAILED, f"its worker died, {RETRIES + 1} times over"
        if status == FAILED:
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
            seconds=time.perf_counter() - live.started,
            set_up_seconds=live.last.get("set_up_seconds", 0.0),
            trainable_params=live.last.get("trainable_params"),
            worker=live.last.get("worker"),
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


def trained_file(plan: Plan, job: str) -> Path:
    """Where the trained tensors of a final trial are kept."""
    return plan.folder / "final" / f"{job}.safetensors"


def best(journal: Journal) -> TrialRecord | None:
    """The explored trial with the best last epoch among those that ran to their end; None if there is none."""
    return max([*arms(journal), *best_explored(journal)], key=lambda record: record.score, default=None)
