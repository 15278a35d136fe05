"""What the MLflow runs of a search hold, from its journal alone: whenever it is sent, it is the same."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, FINAL, STOPPED, TEST, Journal, TrialRecord
from idat_tune.journal.state import BROKE, DONE, INTERRUPTED

PARENT = "mlflow.parentRunId"
TRIAL = "trial"  # tag of the runs that are trials
ROLE = "role"  # tag of the arms, the winner, and the final runs of them
RUNNING = "RUNNING"
# MLflow has no status of its own for what was stopped early, which went as it should; the tag `status` says it.
STATUS = {COMPLETE: "FINISHED", STOPPED: "FINISHED", FAILED: "FAILED"}
MOST_TEXT = 500  # characters of a reason in a tag
BEST = "best"  # folder of the export

Metric = tuple[str, float, int, int]  # name, value, Unix time in ms, step


@dataclass(frozen=True)
class Search:
    """Which search it is: what of its runs does not stand in the journal. Plain values, so that it fits into JSON."""

    out: str  # absolute; holds the tracking store
    name: str
    task: str
    search_id: str
    data_hash: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    place: Mapping[str, str] = field(default_factory=dict)  # as `place` found it, of this store
    searched: tuple[str, ...] = ()  # settings
    always: tuple[str, ...] = ()  # those of them that no other is a condition of

    @property
    def folder(self) -> Path:
        """Where the search keeps its files."""
        return Path(self.out) / self.name


@dataclass(frozen=True)
class Run:
    """All that one run of MLflow holds."""

    name: str
    start: int  # Unix time in milliseconds
    tags: Mapping[str, str]
    params: Mapping[str, str]
    curve: tuple[Metric, ...] = ()  # in order; grows at its end while a trial runs
    figures: tuple[Metric, ...] = ()  # one value each
    status: str = RUNNING
    end: int | None = None  # likewise
    timed: bool = True  # whether the journal knows when it began, to the millisecond
    artifacts: tuple[tuple[Path, str], ...] = field(default=(), compare=False)  # path and folder among the artifacts


def child(search: Search, parent: str, journal: Journal, record: TrialRecord) -> Run:
    """The run of a trial; of one that is running, a record without a status of the journal's."""
    ended = record.status in STATUS
    tags = {
        PARENT: parent,
        TRIAL: record.id,
        "stage": record.stage,
        **({"arm": ",".join(record.arms)} if record.arms else {}),
        **({ROLE: role} if (role := _role(journal, record)) else {}),
        **({"contender": record.contender, "fold": str(record.fold)} if record.contender else {}),
        **({"status": record.status} if ended else {}),
        **({"reason": record.reason[:MOST_TEXT]} if record.reason else {}),
        **_origin(search),
    }
    curve = tuple(
        (name, value, stamp, epoch.epoch)
        for epoch, stamp in zip(record.epochs, record.stamps(), strict=True)
        for name, value in epoch.tracked().items()
    )
    return Run(
        record.id,
        record.started_ms,
        tags,
        used(record.config),
        curve,
        tuple(_figures(journal, record)) if ended else (),
        STATUS.get(record.status, RUNNING),
        record.ended_ms if ended else None,
        bool(record.began),
    )


def _role(journal: Journal, record: TrialRecord) -> str:
    """What a run is to the outcome: an arm, the winner, or a final run of one of these; empty for others."""
    if record.stage == FINAL:
        return ", ".join(record.arms) or record.contender or ""
    frozen = journal.state.frozen
    won = record.stage == EXPLORE and frozen is not None and frozen.about["trial"] == record.id
    return ", ".join((*record.arms, "winner") if won else record.arms)


def used(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings that a run uses, as params: others would look as if they had made a difference."""
    try:
        return {key: str(value) for key, value in RunConfig.from_flat(config).in_use().items()}
    except BadInput:  # of a task that is not known here any more, or a setting of an older version
        return {key: str(value) for key, value in config.items()}


def _figures(journal: Journal, record: TrialRecord) -> Iterator[Metric]:
    """What is said of a trial as a whole: at its end, then by the confirm stage, then by the test."""
    found: dict[str, float | None] = {
        "score": record.score if record.val_accuracy is not None else None,
        "epochs_run": len(record.epochs),
        "trainable_params": record.trainable_params,
        "seconds": record.seconds,
    }
    yield from ((name, float(value), record.ended_ms, 0) for name, value in found.items() if value is not None)
    frozen, tested = journal.state.frozen, journal.tested()
    if record.stage == EXPLORE and frozen:
        runs = [r for r in journal.of(CONFIRM) if r.contender == record.id and r.status == COMPLETE]
        accuracies = [run.val_accuracy for run in runs if run.val_accuracy is not None and run.ended <= frozen.time]
        if accuracies:
            yield "confirmed/accuracy", statistics.fmean(accuracies), int(frozen.time * 1000), 0
        finals = [tested[run.id][0] for run in journal.finals(record.config) if run.id in tested]
        if finals:
            yield "test/accuracy", statistics.fmean(finals), journal.of(TEST)[-1].ended_ms, 0
    if record.stage == FINAL:
        for opened in journal.of(TEST):
            if record.id in opened.tested:
                for name, value in zip(("test/accuracy", "test/loss"), opened.tested[record.id], strict=True):
                    yield name, value, opened.ended_ms, 0


def parent(search: Search, journal: Journal, runs: Mapping[str, str], ended: bool = False) -> Run:
    """The run of a search.

    Args:
        search: which one.
        journal: of which at least the first line was written.
        runs: ids of the trials' runs.
        ended: whether nothing goes on; a search whose driver was killed then counts as interrupted.
    """
    state = journal.state
    assert state.first is not None
    above = {PARENT: search.place["run"]} if "run" in search.place else {}
    tags = {"search": search.name, "search_id": search.search_id, **search.tags, **above}
    params = {**search.params, "trials": str(state.first.about["trials"])}
    start = int(state.first.time * 1000)
    # What trained its lost student again, and was killed then, has its result all the same.
    end = state.end or (state.done if ended and state.result else None)
    if end is None and not ended:
        return Run(search.name, start, tags, params)
    kind, about, when = (end.kind, end.about, end.time) if end else (INTERRUPTED, {}, state.last)
    result = about.get("result")
    tags |= {"status": {DONE: "finished", BROKE: "failed", INTERRUPTED: "interrupted"}[kind]}
    tags |= {"reason": about["reason"][:MOST_TEXT]} if kind == BROKE else {}
    if result:
        tags |= _told(search, journal, result, runs)
    return Run(
        search.name,
        start,
        tags,
        params,
        (),
        tuple((name, value, int(when * 1000), 0) for name, value in of_result(result or {}).items()),
        {DONE: "FINISHED", BROKE: "FAILED", INTERRUPTED: "KILLED"}[kind],
        int(when * 1000),
        all(record.began for record in journal.records),
        artifacts=tuple(_artifacts(search)) if kind == DONE else (),
    )


def _origin(search: Search) -> dict[str, str]:
    return {name: text for name, text in search.tags.items() if name.startswith("mlflow.")}


def _artifacts(search: Search) -> Iterator[tuple[Path, str]]:
    """Files that go with a finished search, as far as they are there."""
    best = search.folder / BEST
    yield from ((path, BEST) for path in sorted(best.iterdir()) if path.is_file()) if best.is_dir() else ()
    named = (search.folder / name for name in ("manifest.json", "search.yaml", "report.html"))
    yield from ((path, "") for path in named if path.is_file())


def _told(search: Search, journal: Journal, result: Mapping[str, Any], runs: Mapping[str, str]) -> dict[str, str]:
    """What a result says in words."""
    winner = result["winner"] or {}
    trial = str(winner.get("trial", ""))
    return {
        "verdict": result["verdict"],
        "mlflow.note.content": description(result),
        "confirmed": str(bool(journal.of(CONFIRM))).lower(),
        "test_openings": str(result["test_openings"]),
        **({"winner.trial": trial} if trial else {}),
        **({"winner.run_id": runs[trial]} if trial in runs else {}),
    }


def description(result: Mapping[str, Any]) -> str:
    """The result as Markdown: the verdict, and a table of the winner and the arms."""
    lines = [result["verdict"], "", "| | trial | val | confirmed | test | parameters |", "|---|---|---|---|---|---|"]
    for name, found in {"winner": result["winner"], **result["arms"]}.items():
        if found:
            confirmed, test = found.get("confirmed"), found.get("test_accuracy")
            figures = (found.get("val_accuracy"), confirmed and confirmed["mean"], test and test["mean"])
            shown = ["" if figure is None else f"{100 * figure:.2f} %" for figure in figures]
            params = found.get("trainable_params")
            cells = (name, found.get("trial", ""), *shown, "" if params is None else f"{params:,}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def of_result(result: Mapping[str, Any]) -> dict[str, float]:
    """A result's figures for the parent run: the winner's under the names that trials have, then every arm's.

    Accuracies and their differences are fractions; `/low` and `/high` are the bounds of a 95 % interval.
    """
    found: dict[str, float | None] = {}
    winner = result.get("winner")
    if winner:
        found |= {
            "val/accuracy": winner.get("val_accuracy"),
            "confirmed/accuracy": winner["confirmed"]["mean"] if winner.get("confirmed") else None,
            "test/accuracy": winner["test_accuracy"]["mean"] if winner.get("test_accuracy") else None,
            "trainable_params": winner.get("trainable_params"),
        }
        if (error := (winner.get("confirmed") or {}).get("standard_error")) is not None:
            mean, half = winner["confirmed"]["mean"], 1.96 * error
            found |= {"confirmed/accuracy/low": mean - half, "confirmed/accuracy/high": mean + half}
    for name, one in {"winner": winner, **result.get("arms", {})}.items():
        if one:
            found[f"{name}/val_accuracy"] = one.get("val_accuracy")
            found[f"{name}/confirmed_accuracy"] = one["confirmed"]["mean"] if one.get("confirmed") else None
            found[f"{name}/test_accuracy"] = one["test_accuracy"]["mean"] if one.get("test_accuracy") else None
    for pair in result.get("comparisons", ()):
        name = f"{pair['ours']}_minus_{pair['theirs']}/{pair['split']}"
        found[name] = pair["mean"]
        if pair["interval"]:
            found[f"{name}/low"], found[f"{name}/high"] = pair["interval"]
    found["seconds"] = result.get("seconds")
    return {name: float(value) for name, value in found.items() if value is not None}
