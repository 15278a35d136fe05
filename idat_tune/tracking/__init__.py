"""The only door to MLflow: a parent run per search, a child run per trial, artifacts."""

from idat_tune.tracking.store import (
    check,
    embedded,
    lay_out,
    patient,
    plainly,
    reach,
    server_command,
    shown,
    store,
    uri,
)
from idat_tune.tracking.tracker import PARENT, Tracker, rehearse

__all__ = [
    "PARENT",
    "Tracker",
    "check",
    "embedded",
    "lay_out",
    "patient",
    "plainly",
    "reach",
    "rehearse",
    "server_command",
    "shown",
    "store",
    "uri",
]
