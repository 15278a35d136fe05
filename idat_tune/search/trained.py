"""The trained tensors of final runs, as files of the search folder."""

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from idat_tune.journal import COMPLETE, FINAL, Journal
from idat_tune.search.plan import Plan
from idat_tune.search.stages import is_cut_short, winner
from idat_tune.search.verdict import Findings


def trained_file(plan: Plan, job: str) -> Path:
    """Where the trained tensors of a final trial are kept."""
    return plan.folder / "final" / f"{job}.safetensors"


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


def lost_finals(plan: Plan, journal: Journal) -> list[str]:
    """Final runs whose tensors are gone and still wanted: by a test that is to come, or for the export."""
    tested = journal.tested()  # of which one may have failed when it was to be trained again
    finished = [record for record in journal.of(FINAL) if record.status == COMPLETE or record.id in tested]
    if not journal.state.to_open and not is_cut_short(journal):
        exported = Findings(plan, journal, winner(plan, journal)).exported()
        finished = [record for record in finished if exported and record.id == exported.id]
    return [record.id for record in finished if not is_kept(trained_file(plan, record.id))]


def is_kept(path: Path) -> bool:
    """Whether a file of trained tensors is there and whole."""
    try:
        with safe_open(path, "numpy"):
            return True
    except (OSError, SafetensorError):
        return False
