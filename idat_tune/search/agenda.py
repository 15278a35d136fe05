"""What a search runs beside the sampler's proposals: arms and hints first, then confirm, final runs and test."""

from collections import deque
from pathlib import Path

from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FINAL, TEST, Journal, TrialRecord
from idat_tune.search.confirm import Confirmation, arms, best_explored, config_of, confirm_job, contender
from idat_tune.search.listener import Listener
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import DEFAULT, Job, Plan, jobs_of


class Agenda:
    """The stages of a search, and what of them is left after a restart."""

    def __init__(self, plan: Plan, journal: Journal, manifest: Manifest, listener: Listener):
        self.plan = plan
        self.journal = journal
        self.manifest = manifest
        self.listener = listener
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
        if self.gap_jobs:
            return [self.gap_jobs.popleft()]
        return [] if running else self._test_jobs()

    def _decide(self, running: list[Job]) -> list[Job]:
        """The next run of the confirm stage, or, when nothing of it is left, the winner's final runs."""
        if self.manifest.content["winner"] is None and self.plan.folds:
            if self.confirmation is None:
                self.manifest.set("explored", True)
                self.confirmation = Confirmation(self.plan, self.journal)
                self.gap_jobs = deque(job for job in self.gap_jobs if job.stage != CONFIRM)
            job = self.confirmation.next_job([(job.contender, job.fold) for job in running])
            if job or running:
                return [job] if job else []
        self.winner_chosen = True
        return self._winner_jobs()

    def hear(self, record: TrialRecord) -> None:
        """A trial has ended, and stands in the journal."""
        if self.confirmation and record.stage == CONFIRM:
            self.confirmation.hear(record)

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
        self.listener.winner_chosen(winner)
        return self._not_done(self.plan.winner_finals(winner.id, config_of(winner)))

    def _winner(self) -> TrialRecord | None:
        if self.confirmation is None:
            return best(self.journal)
        choice = self.confirmation.choice()
        return contender(self.journal, choice.winner, self.plan.seed) if choice else None

    def _test_jobs(self) -> list[Job]:
        """Open the test split, if the winner has a student that was not tested before, or it is asked for anew."""
        students = self.students()
        opened, finished = len(self.manifest.test_openings), len(self.journal.of(TEST))
        known = opened > 0 and opened == finished
        if self.tested or not students or (known and not self.plan.reopen_test):
            return []
        self.tested = True
        if opened == finished:  # otherwise a restart goes on with an opening that a crash cut short
            self.manifest.open_test()
            self.listener.test_opened(len(students), len(self.manifest.test_openings))
        winner = self.manifest.winner(self.journal)
        return [self.plan.test_job(len(self.manifest.test_openings), config_of(winner))] if winner else []

    def _not_done(self, jobs: list[Job]) -> list[Job]:
        """Those that must run. A config that failed stays failed; a failed final run or test is tried again."""
        done = {r.id for r in self.journal.records if r.stage in (EXPLORE, CONFIRM) or r.status == COMPLETE}
        return [job for job in jobs if job.id not in done]

    def _known_early(self) -> list[Job]:
        """What will be run whoever wins: the default on all splits, and the final runs of default and alone."""
        default = jobs_of(EXPLORE, "arm", {DEFAULT: self.plan.config_of({})})[0]
        confirms = [confirm_job(default.id, fold, default.config) for fold in range(self.plan.folds)]
        return ([] if self.manifest.content["winner"] else confirms) + self.plan.arm_finals()


def _of(stage: str, jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.stage == stage]


def trained_file(plan: Plan, job: str) -> Path:
    """Where the trained tensors of a final trial are kept."""
    return plan.folder / "final" / f"{job}.safetensors"


def keep_trained(plan: Plan, job: str, state: bytes) -> None:
    """Keep them: whole or not at all."""
    path = trained_file(plan, job)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(state)
    partial.replace(path)


def best(journal: Journal) -> TrialRecord | None:
    """The explored trial with the best last epoch among those that ran to their end; None if there is none."""
    return max([*arms(journal), *best_explored(journal)], key=lambda record: record.score, default=None)
