"""What the terminal shows of results: tables, and figures as a person says them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from idat_tune.config import RunConfig
from idat_tune.data import Listed
from idat_tune.journal import FAILED
from idat_tune.kinds import KINDS
from idat_tune.metrics import EpochMetrics
from idat_tune.recipes import Recipe
from idat_tune.report.words import brief, duration, percent
from idat_tune.tasks import Task


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
            failed = " (failed)" * (record["status"] == FAILED)
            table.add_row(arm, f"{record['trial']}{failed}", *figures, trainable)
            configs.add_row(f"{arm}:", brief(record["config"]))
    if result["winner"]:
        table.caption = "the winner was chosen by validation and confirmed, which are optimistic for it; test is not"
        table.caption_justify = "left"
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


def recipe_table(recipes: Mapping[str, Recipe]) -> Table:
    """What `idat-tune describe --recipes` shows."""
    table = Table(box=SIMPLE)
    for name in ("recipe", "sets", "otherwise in what is published"):
        table.add_column(name, no_wrap=name == "recipe")
    for name, recipe in recipes.items():
        sets = " ".join(f"{key}={str(value).lower()}" for key, value in recipe.settings.items())
        table.add_row(name, sets, recipe.otherwise)
    return table


def standing_table(standings: Iterable[Mapping[str, Any]]) -> Table:
    """What `idat-tune status` shows."""
    table = Table(box=SIMPLE)
    for name in ("search", "task", "state", "trials", "best val", "test", "last heard", "process or reason"):
        words = name in ("search", "task", "state", "process or reason")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "process or reason")
    for one in standings:
        trials = one["trials"] or {}
        failed = f" ({trials['failed']} failed)" if trials.get("failed") else ""
        state = f"{one['state']}, {one['stage']}" if one["stage"] else one["state"]
        cells = (
            one["name"],
            one["task"] or "",
            state,
            f"{_of(trials['ended'], trials['asked'])}{failed}" if trials.get("asked") or trials.get("ended") else "",
            *("" if one[key] is None else percent(one[key]) for key in ("val_accuracy", "test_accuracy")),
            "" if one["age"] is None else f"{duration(one['age'])} ago",
            one["process"] or one["reason"] or "",
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _of(ended: int, asked: int) -> str:
    """How many have ended of those asked for; arms run whether they were asked for or not."""
    return f"{ended} of {asked}" if ended <= asked else str(ended)


def listing_table(listed: Iterable[Listed], folder: Path) -> Table:
    """What `idat-tune data list` shows."""
    table = Table(title=Text(str(folder)), title_justify="left", box=SIMPLE)
    for name in ("task", "state", "classes", "train", "val", "test", "MB", "where"):
        words = name in ("task", "state", "where")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "where")
    for found in listed:
        task = found.task
        sizes = (task.classes, task.train, task.val, task.test)
        counts = [f"{count:,}" if any(sizes) else "" for count in sizes]
        size = f"{found.bytes / 1e6:.1f}" if found.bytes else ""
        # As text: brackets in a path are no markup.
        table.add_row(task.name, found.state, *counts, size, Text(found.why or str(found.where or "")))
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


def arms_table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """The means of every arm that the space names, over several tasks, on test; None where it names none."""
    known = ("winner_test", "default_test", "alone_test")
    arms = [name for name in rows[0] if name.endswith("_test") and name not in known]
    if not arms:
        return None
    table = Table(title="arms on test, accuracy in percent", title_justify="left", box=SIMPLE)
    means = [row for row in rows if row["row"].endswith(" mean")]
    for name in ("", *(row["row"] for row in means)):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for arm in arms:
        table.add_row(arm.removesuffix("_test"), *(percent(row[arm], 2) for row in means))
    return table


def estimate_tables(estimates: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """What `idat-tune search --dry-run` shows: what each search would cost, and all of them together."""
    for estimate in estimates:
        lines = _estimate_lines(estimate)
        title = f"{estimate['task']}: {estimate['workers']} trials at once, each on {_device(estimate)}"
        yield _figures(title, lines)
    if len(estimates) > 1:
        prices = [estimate["price"] for estimate in estimates if estimate["price"]]
        hours, gpu_hours = (sum(estimate[key] for estimate in estimates) for key in ("hours", "gpu_hours"))
        lines = {"time": duration(3600 * hours)} | ({"GPU-hours": f"{gpu_hours:.2f}"} if gpu_hours else {})
        if prices:
            lines["price"] = f"{sum(price['total'] for price in prices):.2f}"
        yield _figures(f"all {len(estimates)} tasks", lines)


def _device(estimate: Mapping[str, Any]) -> str:
    part = estimate["gpus_per_trial"]
    return "one core" if not part else f"{part:g} of {estimate['device']}"


def _estimate_lines(estimate: Mapping[str, Any]) -> dict[str, str]:
    trials, epochs, memory = estimate["trials"], estimate["epochs"], estimate["memory"]
    full = trials * estimate["epochs_per_trial"]
    slow, fast = (end(probed["seconds_per_1000_images"] for probed in estimate["probed"]) for end in (max, min))
    lines = {
        "explore": f"{trials} trials of {estimate['epochs_per_trial']} epochs; "
        f"{epochs.get('explore', 0):.0f} of {full} epochs are run",
        "confirm": f"{epochs.get('confirm', 0):.0f} epochs",
        "final run": f"{epochs.get('final', 0):.0f} epochs, then the test split once",
        "epoch": f"{fast:.3g} to {slow:.3g} s for 1,000 images, measured on {len(estimate['probed'])} configs",
        "start": duration(estimate["start_seconds"]),
        "time": f"{duration(3600 * estimate['hours'])}, start included",
    }
    if estimate["gpu_hours"]:
        lines["GPU-hours"] = f"{estimate['gpu_hours']:.2f}"
    if estimate["price"]:
        lines["price"] = "{total:.2f}, at {per_hour:g} per {per}".format(**estimate["price"])
    lines["memory"] = f"{memory['per_trial_gb']:.2f} GB per trial at most, " + (
        "measured" if memory["measured"] else "predicted from shapes, without what every process takes"
    )
    if memory["trials_per_gpu"] is not None:
        lines["fit a GPU"] = f"{memory['trials_per_gpu']} trials"
    return lines


def _figures(title: str, lines: Mapping[str, str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, show_header=False)
    for name, text in lines.items():
        table.add_row(name, text)
    return table
