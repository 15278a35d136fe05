"""What a search runs beside the sampler's proposals: arms and hints first, then confirm, final runs and test."""

import os
from collections import deque
from pathlib import Path

from safetensors import SafetensorError, safe_open

from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FINAL, Journal, TrialRecord
from idat_tune.search.callback import Callback
from idat_tune.search.confirm import Confirmation, arm_record, arms, best_explored, config_of, confirm_job, contender
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import DEFAULT, Job, Plan, jobs_of
from idat_tune.search.verdict import Findings


class Agenda:
    """The stages of a search, and what of them is left after a restart."""

    def __init__(self, plan: Plan, journal: Journal, manifest: Manifest, callback: Callback):
        self.plan = plan
        self.journal = journal
        self.manifest = manifest
        self.callback = callback
        self.gap_jobs = deque(self._not_done(self._known_early()))
        self.confirmation: Confirmation | None = None  # from the end of exploring on
        self.winner_chosen = self.tested = False

    @property
    def undecided(self) -> bool:
        """Whether more may be explored."""
        return not self.manifest.content["explored"] and self.manifest.content["winner"] is None

    def first_jobs(self) -> list[Job]:
        """What is explored before the sampler proposes anything, as far as it is not done."""
        return self._not_done(self.plan.first_jobs()) if self.undecided else []

    def next_jobs(self, running: list[Job]) -> list[Job]:
        """What follows exploring: the confirm stage, the winner's final run, the arms', the test.

        Nothing while the next depends on one that is running, and at the end.

        What waits for no decision fills the gaps in which the last trials of a stage run: a worker that waits is one
        that Tune ends, and a new one has all its imports before it.
        """
        if not _of(EXPLORE, running) and not self.winner_chosen:
            decided = self._decide(_of(CONFIRM, running))
            if decided:
                return decided
        gap_job = self._gap_job()
        if gap_job:
            return [gap_job]
        return [] if running else self._test_jobs()

    def _gap_job(self) -> Job | None:
        """A run that waits for nothing; the default is confirmed only once it was explored to its end."""
        default = arm_record(self.journal, DEFAULT)
        job = next((job for job in self.gap_jobs if default or job.stage == FINAL), None)
        if job:
            self.gap_jobs.remove(job)
        return job

    def _decide(self, running: list[Job]) -> list[Job]:
        """The next run of the confirm stage, or, when nothing of it is left, the winner's final runs."""
        if not self.manifest.content["explored"]:
            self.manifest.set("explored", True)
        if self.manifest.content["winner"] is None and self.plan.config.confirm.folds:
            if self.confirmation is None:
                self.confirmation = Confirmation(self.plan, self.journal)
                self.gap_jobs = deque(job for job in self.gap_jobs if job.stage != CONFIRM)
            job = self.confirmation.next_job([(job.contender, job.fold) for job in running])
            if job or running:
                return [job] if job else []
        self.winner_chosen = True
        return self._winner_jobs()

    def hear(self, record: TrialRecord) -> None:
        """A trial has ended, and stands in the journal."""
        self._note_second_training(record)
        if self.confirmation and record.stage == CONFIRM:
            self.confirmation.hear(record)

    def _note_second_training(self, record: TrialRecord) -> None:
        """Keep in mind of which final runs the tensors are not those that were tested."""
        noted = set(self.manifest.content["trained_again"])
        if record.stage == FINAL and record.id in self.journal.tested():
            self.manifest.set("trained_again", sorted(noted | {record.id}))
        elif noted & set(record.tested):
            self.manifest.set("trained_again", sorted(noted - set(record.tested)))

    def students(self) -> list[TrialRecord]:
        """The finished final runs of the winner, the default and alone; none if the winner has none."""
        winner = self.manifest.winner(self.journal)
        if winner is None:
            return []
        ours = {job.config for job in self.plan.finals(winner.id, config_of(winner))}
        wanted = ours | {job.config for job in self.plan.arm_finals()}
        done = [record for record in self.journal.of(FINAL) if record.status == COMPLETE]
        return [r for r in done if config_of(r) in wanted] if any(config_of(r) in ours for r in done) else []

    def _winner_jobs(self) -> list[Job]:
        """Freeze the winner; what of its final run is not done yet."""
        winner = self.manifest.winner(self.journal) or self._winner()
        if winner is None:
            self.gap_jobs.clear()  # every config failed, so these would too
            return []
        self.manifest.set("winner", winner.id)
        self.callback.on_winner(winner)
        return self._not_done(self.plan.winner_finals(winner.id, config_of(winner)))

    def _winner(self) -> TrialRecord | None:
        if self.confirmation is None:
            return best(self.journal)
        choice = self.confirmation.choice()
        return contender(self.journal, choice.winner, self.plan.seed) if choice else None

    def _test_jobs(self) -> list[Job]:
        """Open the test split for the first time, or once more on request; or finish an opening that was cut short."""
        students, winner = self.students(), self.manifest.winner(self.journal)
        cut_short = self.manifest.cut_short(self.journal)
        if self.tested or not students or winner is None or not (cut_short or self.manifest.to_open):
            return []
        self.tested = True
        if not cut_short:
            self.manifest.open_test()
            self.callback.on_test_open(len(students), len(self.manifest.test_openings))
        return [self.plan.test_job(len(self.manifest.test_openings), config_of(winner))]

    def _not_done(self, jobs: list[Job]) -> list[Job]:
        """Those that must run. A config that failed stays failed; a failed final run or test is tried again.

        So is a final run whose tensors are wanted, for the test or for the export, and are gone.
        """
        done = {r.id for r in self.journal.records if r.stage in (EXPLORE, CONFIRM) or r.status == COMPLETE}
        lost = {r.id for r in lost_finals(self.plan, self.journal, self.manifest)}
        return [job for job in jobs if job.id not in done - lost]

    def _known_early(self) -> list[Job]:
        """What will be run whoever wins: the default on all splits, and the final runs of default and alone."""
        default = jobs_of(EXPLORE, "arm", {DEFAULT: self.plan.config_of({})})[0]
        confirms = [confirm_job(default.id, fold, default.config) for fold in range(self.plan.config.confirm.folds)]
        return ([] if self.manifest.content["winner"] else confirms) + self.plan.arm_finals()


def _of(stage: str, jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.stage == stage]


def trained_file(plan: Plan, job: str) -> Path:
    """Where the trained tensors of a final trial are kept."""
    return plan.folder / "final" / f"{job}.safetensors"


def is_kept(path: Path) -> bool:
    """Whether a file of trained tensors is there and whole."""
    try:
        with safe_open(path, "numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def lost_finals(plan: Plan, journal: Journal, manifest: Manifest) -> list[TrialRecord]:
    """Final runs whose tensors are gone and still wanted: by a test that is to come, or for the export."""
    finished = [record for record in journal.of(FINAL) if record.status == COMPLETE]
    if not manifest.to_open and not manifest.cut_short(journal):
        exported = Findings(plan, journal, manifest.winner(journal)).exported()
        finished = [record for record in finished if exported and record.id == exported.id]
    return [record for record in finished if not is_kept(trained_file(plan, record.id))]


def keep_trained(plan: Plan, job: str, state: bytes) -> None:
    """Keep them: whole or not at all."""
    path = trained_file(plan, job)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(state)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def best(journal: Journal) -> TrialRecord | None:
    """The explored trial with the best last epoch among those that ran to their end; None if there is none."""
    return max([*arms(journal), *best_explored(journal)], key=lambda record: record.score, default=None)
