"""Follows a search on the terminal: a live view or a line per trial, and nobody else's noise."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from idat_tune.config import RunConfig
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, STOPPED, TrialRecord
from idat_tune.metrics import EpochMetrics
from idat_tune.screen import brief, duration, percent
from idat_tune.search import LOG, Callback
from idat_tune.search.budget import WHY, Budget
from idat_tune.search.estimates import Standing, estimated, measured
from idat_tune.search.plan import LINEAR, Job, Plan

FRESH = 2.0  # seconds for which a forecast of the time left is good, less what has passed
SILENCE = 60.0  # seconds after which plain lines say how far the search is
PART = 0.02  # of the driver's time that may go into forecasts


class Progress(Callback):
    """Follows a search: a live view on a terminal, a line per trial elsewhere or when `quiet`."""

    def __init__(
        self,
        quiet: bool = False,
        way_on: str = "the same command",
        clock: Callable[[], float] = time.monotonic,
        label: str = "",
    ):
        """A `label` begins every line where several searches share the terminal, which then is nobody's alone."""
        self.quiet = quiet
        self.label = label
        self.clock = clock
        self.way_on = way_on  # the command that resumes the search
        self.open = ExitStack()
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live: Live | None = None
        self.running: dict[str, tuple[Job, EpochMetrics | None]] = {}
        self.ended = {COMPLETE: 0, STOPPED: 0, FAILED: 0}
        self.best: TrialRecord | None = None
        self.plan: Plan | None = None
        self.budget: Budget | None = None
        self.workers = 1
        self.records: list[TrialRecord] = []
        self.explored = False
        self.winner: RunConfig | None = None
        self.began = self.said = self.clock()
        self.foreseen: tuple[float, float | None] = (0.0, None)  # when, and the seconds that were left then
        self.foresee_at = 0.0

    def on_search_open(self, plan: Plan) -> None:
        """From now on the screen is ours alone; the log file in the search's folder takes what others print."""
        if self.label:
            return
        stderr = self.open.enter_context(others_silenced(plan.folder / LOG))
        self.console = Console(file=stderr, highlight=False, soft_wrap=True)
        if self.console.is_terminal and not self.quiet:
            self.live = Live(console=self.console, refresh_per_second=4)
            self.open.callback(self._wipe, self.live)

    def on_search_start(self, plan: Plan, workers: int, earlier: Sequence[TrialRecord], budget: Budget) -> None:
        """Say what is going to be done."""
        self.plan, self.workers, self.budget, self.began = plan, workers, budget, self.clock()
        for record in earlier:
            self._count(record)
        self.say(
            f"search {plan.name}: task {plan.task.name}, space {plan.space.name}, {self._trials()} trials of "
            f"{plan.config_of({}).epochs} epochs, {workers} at once" + (f", {len(earlier)} done" if earlier else "")
        )
        for teacher, why in plan.left_out:
            self.say(f"without teacher {teacher} of space {plan.space.name}: {why}")
        for name, trial in plan.merged():
            self.say(f"{name} is not run beside {trial}, which has the same config and stands for both")
        first, asked = self._first(), plan.config.explore.trials
        if not earlier and not plan.explores and not (plan.space.params and asked):
            self.say(f"nothing is explored: {len(first)} arms are all the trials")
        elif not earlier and plan.space.params and len(first) >= asked:
            arms = sum(bool(job.arms) for job in first)
            starts = f" and {len(first) - arms} starting points" * (len(first) > arms)
            self.say(f"the sampler proposes nothing: {arms} arms{starts} are all the trials; more --trials let it")
        if self.live:
            self.live.start()
            self._draw()

    def on_remark(self, sentence: str) -> None:
        """Say it."""
        self.say(sentence)

    def on_trial_start(self, job: Job) -> None:
        """Show it among the running ones."""
        self.running[job.id] = (job, None)
        self._draw()

    def on_epoch_end(self, job: Job, epoch: EpochMetrics) -> None:
        """Move its bar on."""
        self.running[job.id] = (job, epoch)
        if self.live is None and self.clock() - self.said > SILENCE:
            self.say(f"search {self._standing()}; {', '.join(map(_through, self.running.values()))}")
        self._draw()

    def on_trial_end(self, record: TrialRecord) -> None:
        """Count it, and say how it went."""
        self.running.pop(record.id, None)
        self._count(record)
        shown = str(record.reason) if record.status == FAILED else ""
        if record.stage in (EXPLORE, CONFIRM) and not shown:
            shown = f"val {percent(record.val_accuracy)}"
        name = f"{record.id} ({', '.join(record.arms)})" if record.arms else record.id
        line = f"{name:<28} {record.status:<8} {shown:<12} {record.seconds:5.1f} s  {brief(record.config)}"
        line = f"{line}  {self._count_of(record.stage)}{duration(self.clock() - self.began)}  {self._left()}"
        if self.live is None or record.status == FAILED:
            self.say(line)
        self._draw()

    def on_explore_end(self, limit: str) -> None:
        """Say which limit it was."""
        self.explored = True
        self.say(f"exploring ends ({limit}): {WHY[limit]}")

    def on_winner(self, winner: TrialRecord) -> None:
        """Say which one it is."""
        self.winner = RunConfig.from_flat(winner.config)
        accuracy = percent(winner.val_accuracy)
        self.say(f"the winner is {winner.id}, val {accuracy}: {brief(winner.config)}")
        self._draw()

    def on_test_open(self, students: int, opening: int) -> None:
        """Say so, as it happens once."""
        count = "once" if opening == 1 else f"for time {opening} in this search"
        self.say(f"the test split is opened, {count}, for {students} students")

    def on_tracking_failure(self, sentence: str) -> None:
        """Say it."""
        self.say(sentence)

    def on_tracking_back(self, sentence: str) -> None:
        """Say it."""
        self.say(sentence)

    def on_made_again(self, what: str) -> None:
        """Say what it is."""
        self.say(f"lost, and made again: {what}")

    def on_ray_lost(self, process: str) -> None:
        """Say what happened and how to go on, and leave: Ray would end this process in a while, without a word."""
        self.close()
        self.say(f"error: Ray's {process} process died; what was finished is kept. Go on: {self.way_on}")
        os._exit(1)

    def on_interrupt(self) -> None:
        """Say at once that it was heard."""
        self.say("stopping")

    def say(self, text: str) -> None:
        """Print a line above the live part; the search outlives its terminal."""
        self.said = self.clock()
        with suppress(OSError):
            self.console.print(f"{self.label}{text}", markup=False)

    def close(self) -> None:
        """Give the screen back; what the live part showed last is wiped."""
        self.open.close()
        self.live = None
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    @staticmethod
    def _wipe(live: Live) -> None:
        if live.is_started:
            live.update(Text(""), refresh=True)
            live.stop()

    def _count(self, record: TrialRecord) -> None:
        self.records.append(record)
        if record.stage != EXPLORE:
            return
        self.ended[record.status] += 1
        if record.status == COMPLETE and (self.best is None or record.score > self.best.score):
            self.best = record

    def _draw(self) -> None:
        if self.live and self.live.is_started:
            with suppress(OSError):
                self.live.update(self._view())

    def _standing(self) -> str:
        """How far the search is, in a line."""
        assert self.plan is not None
        done, trials = sum(self.ended.values()), self._trials()
        elapsed = self.clock() - self.began
        stages = sorted({job.stage for job, _ in self.running.values()})
        exploring = not self.explored and done < trials
        stage = f"{done} of {trials} trials" if exploring or not stages else f"{done} trials, {' and '.join(stages)}"
        return (
            f"{self.plan.name}  {stage}  ({self.ended[COMPLETE]} complete, {self.ended[STOPPED]} stopped, "
            f"{self.ended[FAILED]} failed)  {duration(elapsed)}, {self._left()}"
        )

    def _trials(self) -> int:
        assert self.plan is not None
        return self.plan.trials

    def _first(self) -> list[Job]:
        """What is tried before anything is proposed and counts as a trial."""
        assert self.plan is not None
        return [job for job in self.plan.first_jobs() if LINEAR not in job.arms]

    def _count_of(self, stage: str) -> str:
        if stage != EXPLORE or self.plan is None:
            return ""
        return f"{sum(self.ended.values())} of {self._trials() + len(self.plan.linear_probes())}, "

    def _view(self) -> Group:
        head = Text(self._standing(), style="bold")
        best = self.best and f"best so far: val {percent(self.best.val_accuracy)}  "
        rows = Table.grid(padding=(0, 2))
        for job, epoch in self.running.values():
            count = epoch.epoch + 1 if epoch else 0
            rows.add_row(
                job.id,
                ProgressBar(total=job.config.epochs, completed=count, width=20),
                f"epoch {count}/{job.config.epochs}",
                f"val {percent(epoch.val_accuracy)}" if epoch and epoch.val_accuracy is not None else "",
                brief(job.config.flat()),
            )
        return Group(head, Text(f"{best}{brief(self.best.config)}" if self.best else "no result yet"), rows)

    def _left(self) -> str:
        """The time left for all stages, from what the trials took so far."""
        now = self.clock()
        if now > self.foresee_at:
            self.foreseen = (now, self._foresee())
            took = self.clock() - now
            self.foresee_at = now + max(FRESH, took / PART)
        then, seconds = self.foreseen
        return "time left not known yet" if seconds is None else f"{duration(max(seconds - now + then, 0))} left"

    def _foresee(self) -> float | None:
        pace = measured(self.plan, self.records) if self.plan else None
        if self.plan is None or self.budget is None or pace is None:
            return None
        running = [(job, epoch.epoch + 1 if epoch else 0) for job, epoch in self.running.values()]
        standing = Standing(self.records, running, self.explored, self.winner, self.budget.seconds)
        return estimated(self.plan, self.workers, pace, self.budget.gpus, standing).seconds


def _through(running: tuple[Job, EpochMetrics | None]) -> str:
    job, epoch = running
    return f"{job.id} epoch {epoch.epoch + 1 if epoch else 0}/{job.config.epochs}"


@contextmanager
def others_silenced(log: Path) -> Iterator[TextIO]:
    """Send all that this process and its libraries print into a log file; yields the true stderr.

    On the level of file descriptors, because Ray's native parts write there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with os.fdopen(os.dup(2), "w", buffering=1) as stderr, log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield stderr
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
