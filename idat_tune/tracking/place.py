"""Where in MLflow a search belongs: in an experiment of its caller's, or below a run of theirs."""

import os
import sys
from pathlib import Path

from idat_tune.tracking.store import SETTING, named, uri

EXPERIMENT_NAME, EXPERIMENT_ID, RUN_ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"


def place(out: Path) -> dict[str, str]:
    """Where the runs of a search that begins now belong: `experiment`, `experiment_id` and `run`, those that are told.

    The run is the caller's active one, if it is in the store that the search takes, or MLFLOW_RUN_ID. Ids say nothing
    without the store that they are of: where MLFLOW_TRACKING_URI names none, those of the environment are left out,
    and `store` says which one it is.
    """
    told = {"experiment": os.environ.get(EXPERIMENT_NAME)}
    if os.environ.get(SETTING):
        told["experiment_id"] = os.environ.get(EXPERIMENT_ID)
    told["run"] = run_of_caller(out)
    found = {what: given for what, given in told.items() if given}
    return {"store": named(out), **found} if found else {}


def run_of_caller(out: Path) -> str | None:
    """The id of the run that a search is a part of; None if there is none in its store."""
    if "mlflow" in sys.modules:
        import mlflow

        active = mlflow.active_run()
        if active is not None and mlflow.get_tracking_uri() == uri(out):
            return str(active.info.run_id)
    return os.environ.get(RUN_ID) if os.environ.get(SETTING) else None
