"""The append-only journal of finished trials and decisions: the state of a search, from which it resumes."""

from idat_tune.journal.lines import Journal
from idat_tune.journal.records import (
    COMPLETE,
    CONFIRM,
    EXPLORE,
    FAILED,
    FINAL,
    STAGES,
    STATUSES,
    STOPPED,
    TEST,
    TrialRecord,
)
from idat_tune.journal.state import Decision, State

__all__ = [
    "COMPLETE",
    "CONFIRM",
    "EXPLORE",
    "FAILED",
    "FINAL",
    "STAGES",
    "STATUSES",
    "STOPPED",
    "TEST",
    "Decision",
    "Journal",
    "State",
    "TrialRecord",
]
