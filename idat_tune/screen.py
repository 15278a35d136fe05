"""What the terminal shows: live progress or plain lines, tables, and nobody else's noise."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from idat_tune.backbones import NO_TEACHER
from idat_tune.config import RunConfig
from idat_tune.data import Listed
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, STOPPED, TrialRecord
from idat_tune.kinds import KINDS
from idat_tune.metrics import EpochMetrics
from idat_tune.search import LOG, Listener
from idat_tune.search.budget import WHY
from idat_tune.search.plan import Job, Plan
from idat_tune.tasks import Task


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as percent, or a dash where there is none."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f} %"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def brief(config: Mapping[str, Any]) -> str:
    """The searched settings of a flat config in one short line, only those that it uses."""
    used = KINDS[config["adapter.kind"]].uses
    parts = [str(config["adapter.kind"])]
    if "adapter.hidden_dim" in used:
        parts.append(f"h={config['adapter.hidden_dim']}")
    if "adapter.scale" in used:
        parts.append(f"s={config['adapter.scale']:.3g}")
    parts.append(f"lr={config['optim.lr']:.2g}")
    if config["teacher"] == NO_TEACHER:
        return " ".join([*parts, "alone"])
    parts += [f"teacher={config['teacher']}", str(config["distill.loss"])]
    if config["distill.loss"] == "kl":
        parts.append(f"T={config['distill.temperature']:.3g}")
    return " ".join([*parts, f"lambda={config['distill.weight']:.3g}"])


class Progress(Listener):
    """Follows a search: a live view on a terminal, a line per trial elsewhere or when `quiet`."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.open = ExitStack()
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live: Live | None = None
        self.running: dict[str, tuple[Job, EpochMetrics | None]] = {}
        self.ended = {COMPLETE: 0, STOPPED: 0, FAILED: 0}
        self.best: TrialRecord | None = None
        self.plan: Plan | None = None
        self.began = time.monotonic()

    def search_opened(self, plan: Plan) -> None:
        """From now on the screen is ours alone; the log file in the search's folder takes what others print."""
        stderr = self.open.enter_context(others_silenced(plan.folder / LOG))
        self.console = Console(file=stderr, highlight=False, soft_wrap=True)
        if self.console.is_terminal and not self.quiet:
            self.live = Live(console=self.console, refresh_per_second=4)
            self.open.callback(self._wipe, self.live)

    def search_started(self, plan: Plan, workers: int, earlier: Sequence[TrialRecord]) -> None:
        """Say what is going to be done."""
        self.plan, self.began = plan, time.monotonic()
        for record in earlier:
            self._count(record)
        trials = max(plan.trials, len(plan.first_jobs()))
        self.say(
            f"search {plan.name}: task {plan.task.name}, space {plan.space.name}, {trials} trials of "
            f"{plan.config_of({}).epochs} epochs, {workers} at once" + (f", {len(earlier)} done" if earlier else "")
        )
        if self.live:
            self.live.start()
            self._draw()

    def trial_started(self, job: Job) -> None:
        """Show it among the running ones."""
        self.running[job.id] = (job, None)
        self._draw()

    def epoch_done(self, job: Job, epoch: EpochMetrics) -> None:
        """Move its bar on."""
        self.running[job.id] = (job, epoch)
        self._draw()

    def trial_ended(self, record: TrialRecord) -> None:
        """Count it, and say how it went."""
        self.running.pop(record.id, None)
        self._count(record)
        shown = str(record.reason) if record.status == FAILED else ""
        if record.stage in (EXPLORE, CONFIRM) and not shown:
            shown = f"val {percent(record.val_accuracy)}"
        name = f"{record.id} ({', '.join(record.arms)})" if record.arms else record.id
        line = f"{name:<28} {record.status:<8} {shown:<12} {record.seconds:5.1f} s  {brief(record.config)}"
        if self.live is None or record.status == FAILED:
            self.say(line)
        self._draw()

    def exploring_ended(self, limit: str) -> None:
        """Say which limit it was."""
        self.say(f"exploring ends ({limit}): {WHY[limit]}")

    def winner_chosen(self, winner: TrialRecord) -> None:
        """Say that exploring is over."""
        accuracy = percent(winner.val_accuracy)
        self.say(f"the winner is {winner.id}, val {accuracy}: {brief(winner.config)}")
        self._draw()

    def test_opened(self, students: int) -> None:
        """Say so, as it happens once."""
        self.say(f"the test split is opened, once, for {students} students")

    def say(self, text: str) -> None:
        """Print a line above the live part."""
        self.console.print(text, markup=False)

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
        if record.stage != EXPLORE:
            return
        self.ended[record.status] += 1
        if record.status == COMPLETE and (self.best is None or record.score > self.best.score):
            self.best = record

    def _draw(self) -> None:
        if self.live and self.live.is_started:
            self.live.update(self._view())

    def _view(self) -> Group:
        assert self.plan is not None
        trials = max(self.plan.trials, len(self.plan.first_jobs()))
        done = sum(self.ended.values())
        elapsed = time.monotonic() - self.began
        stage = "final run" if done >= trials else f"{done} of {trials} trials"
        head = Text(
            f"{self.plan.name}  {stage}  ({self.ended[COMPLETE]} complete, {self.ended[STOPPED]} stopped, "
            f"{self.ended[FAILED]} failed)  {duration(elapsed)}, {self._left(done, trials, elapsed)}",
            style="bold",
        )
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

    def _left(self, done: int, trials: int, elapsed: float) -> str:
        if done == 0:
            return "time left not known yet"
        if done >= trials:
            return "nearly done"
        return f"about {duration(elapsed / done * (trials - done))} left to explore"


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


def comparison(result: Mapping[str, Any]) -> Group:
    """The winner beside the default and the adapter alone, in percent, and what each of them is."""
    found = {"winner": result["winner"], **result["arms"]}
    table = Table(title=f"{result['name']} ({result['task']})", title_justify="left", box=SIMPLE)
    for name in ("", "trial", "validation", "confirmed", "test", "trainable"):
        table.add_column(name, justify="left" if name in ("", "trial") else "right", no_wrap=True)
    configs = Table.grid(padding=(0, 2))
    for arm, record in found.items():
        if record is not None:
            trainable = f"{record['trainable_params']:,}" if record["trainable_params"] else "-"
            figures = (percent(record["val_accuracy"]), confirmed(record["confirmed"]), spread(record["test_accuracy"]))
            table.add_row(arm, record["trial"], *figures, trainable)
            configs.add_row(f"{arm}:", brief(record["config"]))
    return Group(table, configs)


def confirmed(found: Mapping[str, Any] | None) -> str:
    """Mean and standard error over the splits of the confirm stage, in percent."""
    if found is None:
        return "-"
    error = "" if found["standard_error"] is None else f" ± {100 * found['standard_error']:.1f}"
    return f"{100 * found['mean']:.1f}{error} % ({found['folds']})"


def spread(accuracy: Mapping[str, Any] | None) -> str:
    """Mean and standard deviation of an accuracy over seeds, in percent."""
    if accuracy is None:
        return "-"
    deviation = "" if accuracy["std"] is None else f" ± {100 * accuracy['std']:.1f}"
    return f"{100 * accuracy['mean']:.1f}{deviation} %"


def epoch_line(epoch: EpochMetrics, epochs: int) -> str:
    """One line for an epoch of a single run."""
    teacher = "" if epoch.val_teacher_accuracy is None else f"  teacher {percent(epoch.val_teacher_accuracy)}"
    val = "" if epoch.val_accuracy is None else f"  val {percent(epoch.val_accuracy)} (loss {epoch.val_loss:.3f})"
    return (
        f"epoch {epoch.epoch + 1}/{epochs}  lr {epoch.lr:.2e}  loss {epoch.train_loss:.4f}{val}{teacher}  "
        f"{epoch.images_per_second:.0f} images/s"
    )


def description(found: Mapping[str, Any], config: RunConfig) -> Table:
    """What `idat-tune describe` shows."""
    hidden = f", h={config.adapter.hidden_dim}" if "adapter.hidden_dim" in KINDS[config.adapter.kind].uses else ""
    table = Table(title=f"{config.adapter.kind}{hidden}", title_justify="left", box=SIMPLE)
    for name in ("", "backbone", "adapters", "head", "trainable"):
        table.add_column(name, justify="left" if name in ("", "backbone") else "right")
    for role in ("student", "teacher"):
        if found[role]:
            counts = [f"{found[role][key]:,}" for key in ("adapter_params", "head_params", "trainable_params")]
            table.add_row(role, found[role]["backbone"], *counts)
    table.add_section()
    table.add_row("together", "", "", "", f"{found['trainable_params']:,} ({found['trainable_params'] / 1e6:.2f} M)")
    flops = found["gflop_per_image"]
    table.caption = (
        f"{flops['forward']:.1f} GFLOP per image forward, {flops['backward']:.1f} backward; "
        f"{found['memory_gb']:.2f} GB for batches of {config.batch_size} in fp32 (predicted)"
    )
    table.caption_justify = "left"
    return table


def task_table(tasks: Iterable[Task]) -> Table:
    """What `idat-tune tasks` shows."""
    table = Table(box=SIMPLE)
    for name in ("task", "group", "classes", "test", "lr", "decay", "drop-path", "also called"):
        words = name in ("task", "group", "also called")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "also called")
    for task in tasks:
        also = ", ".join(dict.fromkeys(name for name in (task.title, *task.aliases) if name != task.name))
        recipe = (f"{task.lr:g}", f"{task.weight_decay:g}", f"{task.drop_path:g}")
        table.add_row(task.name, task.group, str(task.classes), f"{task.test:,}", *recipe, also)
    return table


def listing_table(listed: Iterable[Listed], folder: Path) -> Table:
    """What `idat-tune data list` shows."""
    table = Table(title=str(folder), title_justify="left", box=SIMPLE)
    for name in ("task", "state", "classes", "train", "val", "test", "MB", "where"):
        words = name in ("task", "state", "where")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "where")
    for found in listed:
        task = found.task
        counts = (str(task.classes), *(f"{count:,}" for count in (task.train, task.val, task.test)))
        size = f"{found.bytes / 1e6:.1f}" if found.bytes else ""
        table.add_row(task.name, found.state, *counts, size, found.why or str(found.where or ""))
    return table


def overview_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """One table over several tasks, with all means named."""
    table = Table(title="all tasks, accuracy in percent", title_justify="left", box=SIMPLE)
    for name in ("", "winner val", "winner test", "default test", "alone test"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in rows:
        if row["row"].endswith(" mean") and row["group"]:
            table.add_section()
        figures = (row[figure] for figure in ("winner_val", "winner_test", "default_test", "alone_test"))
        table.add_row(row["row"], *map(percent, figures))
    return table
