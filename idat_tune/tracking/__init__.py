"""The only door to MLflow: a parent run per search, a child run per trial, artifacts."""

from idat_tune.tracking.store import check, lay_out, patient, plainly, server_command, store, uri
from idat_tune.tracking.tracker import PARENT, Tracker, rehearse

__all__ = ["PARENT", "Tracker", "check", "lay_out", "patient", "plainly", "rehearse", "server_command", "store", "uri"]
