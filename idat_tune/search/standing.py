"""How searches stand, from their folders alone: what runs, what has ended, and how."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from idat_tune.errors import BadInput, shown
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, FINAL, TEST, Journal
from idat_tune.journal.state import BROKE, INTERRUPTED, State
from idat_tune.search.holding import LOCK, holder
from idat_tune.search.manifest import JOURNAL, NAME, of_folder
from idat_tune.search.plan import LINEAR

RUNNING, FINISHED, STOPPED = "running", "finished", "interrupted"
BROKEN, DIED, DAMAGED = "failed", "died", "damaged"
UNBEGUN = "not begun"  # told to stop, or failed, before Ray was there


def standings(out: Path, name: str | None = None, clock: Callable[[], float] = time.time) -> list[dict[str, Any]]:
    """How each search in a folder stands, or the one of that name; the newest last.

    Returns:
        For each `name`, `state`, `task`, `stage`, `trials` with `ended` and `asked`, `val_accuracy` (best explored one
        that ran to its end), `test_accuracy` (mean of the winner's), `age` (seconds since its last line), `process`
        and `reason`; None where that is not known.

    Raises:
        BadInput: there is no such search.
    """
    if name is not None:
        if holder(out / name) is None:
            of_folder(out / name)  # which says what there is
        return [_standing(out / name, clock())]
    folders = {file.parent for kind in (NAME, JOURNAL) for file in out.glob(f"*/{kind}")}
    folders |= {file.parent for file in out.glob(f"*/{LOCK}") if holder(file.parent)}  # which has just begun
    found = [_standing(folder, clock()) for folder in folders]
    return sorted(found, key=lambda one: (-(one["age"] or 0), one["name"]))


def _standing(folder: Path, now: float) -> dict[str, Any]:
    held = holder(folder)
    nothing = dict.fromkeys(("task", "stage", "trials", "val_accuracy", "test_accuracy", "age", "reason"))
    found = {"name": folder.name, "state": RUNNING, **nothing, "process": str(held) if held else None}
    try:
        content, journal = of_folder(folder), Journal(folder / JOURNAL)
    except (BadInput, OSError) as failure:
        return found if held else {**found, "state": DAMAGED, "reason": shown(failure, 200)}
    explored = [record for record in journal.of(EXPLORE) if LINEAR not in record.arms]
    accuracies = [record.val_accuracy for record in explored if record.status == COMPLETE]
    state = journal.state
    result = state.result or {}
    winner = result.get("winner") or {}
    return {
        **found,
        "state": RUNNING if held else _ended(state),
        "task": content.get("task"),
        "stage": None if state.result and not held else _stage(state),
        "trials": {
            "ended": len(explored),
            "failed": sum(record.status == FAILED for record in explored),
            "asked": state.trials,
        },
        "val_accuracy": max((one for one in accuracies if one is not None), default=None),
        "test_accuracy": (winner.get("test_accuracy") or {}).get("mean"),
        "age": now - state.last if state.last else None,
        "reason": state.end.about["reason"] if state.end and state.end.kind == BROKE and not held else None,
    }


def _ended(state: State) -> str:
    """How a search that nobody drives came to its end; one that says nothing of it was killed."""
    if state.first is None:
        return UNBEGUN
    if state.end is None:
        return DIED
    return {INTERRUPTED: STOPPED, BROKE: BROKEN}.get(state.end.kind, FINISHED)


def _stage(state: State) -> str:
    if state.undecided:
        return EXPLORE
    if state.winner is None:
        return CONFIRM
    return TEST if state.openings else FINAL
