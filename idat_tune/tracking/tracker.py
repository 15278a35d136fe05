"""The MLflow runs of one search: a parent, a child per trial, artifacts."""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from idat_tune.journal import COMPLETE, FAILED, STOPPED, TEST, TrialRecord
from idat_tune.tracking.store import embedded, lay_out, reach, store, uri

PARENT = "mlflow.parentRunId"
ARTIFACTS = "artifacts"  # of the embedded store, beside it
ENDS = {COMPLETE: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}  # MLflow has no status of its own for stopped


def rehearse(out: Path, task: str) -> None:
    """Take the time that opening the embedded store takes, on a copy; a server elsewhere is left alone.

    What fails would stop no search either.
    """
    if not embedded(out):
        return
    with suppress(Exception), tempfile.TemporaryDirectory() as folder:
        if store(out).exists():
            shutil.copy(store(out), store(Path(folder)))
        lay_out(Path(folder))
        Tracker(Path(folder), task)


MOVED = (
    "UPDATE experiments SET artifact_location = :new || substr(artifact_location, :length + 1) "
    "WHERE substr(artifact_location || '/', 1, :length + 1) = :old || '/'",
    "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, :length + 1) "
    "WHERE substr(artifact_uri || '/', 1, :length + 1) = :old || '/'",
)


def _artifacts_moved(database: Path, old: str, new: str) -> None:
    """Let the artifacts of a store be found where they are now: MLflow keeps their absolute place for good."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in MOVED:
            connection.execute(statement, {"old": old, "new": new, "length": len(old)})


class Tracker:
    """The MLflow runs of one search; the driver has the only one, so that there is one writer."""

    def __init__(self, out: Path, task: str):
        import mlflow

        self.uri = uri(out)
        reach(self.uri)
        self.client = mlflow.MlflowClient(tracking_uri=self.uri)
        self.out = out
        self.task = task
        self.parent = ""
        self.children: dict[str, tuple[str, str]] = {}  # of the parent, by trial: run id and status

    @cached_property
    def experiment(self) -> str:
        """The id of the task's experiment, which is made if it is not there, and brought back if it was deleted."""
        from mlflow.exceptions import MlflowException

        name = f"idat-tune/{self.task}"
        location = (self.out.absolute() / ARTIFACTS).as_uri() if embedded(self.out) else None
        known = self.client.get_experiment_by_name(name)
        if known is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=location))
            except MlflowException:  # another search made it in the meantime, or the store fails for good
                known = self.client.get_experiment_by_name(name)
                if known is None:
                    raise
        if known.lifecycle_stage != "active":
            self.client.restore_experiment(known.experiment_id)
        if location and known.artifact_location != location and known.artifact_location.startswith("file:"):
            _artifacts_moved(store(self.out), known.artifact_location, location)
        return str(known.experiment_id)

    def start(self, search: str, params: Mapping[str, Any], tags: Mapping[str, str], parent: str = "") -> str:
        """Open the parent run of a search, or open it again; its id.

        Args:
            search: its name.
            params: of the parent run.
            tags: likewise; `search_id` tells searches apart and finds a run that a crash left behind unknown.
            parent: the run's id, if it is known.
        """
        parent = parent if parent and self._is_there(parent) else self._known_parent(tags["search_id"])
        if parent:
            self.client.update_run(parent, status="RUNNING")
            self.parent = parent
            self.children = self._known_children()
            return parent
        run = self.client.create_run(self.experiment, run_name=search, tags={"search": search, **tags})
        self.parent = run.info.run_id
        self._log_params(self.parent, params)
        return self.parent

    def _is_there(self, run: str) -> bool:
        """Whether a run is there; one that was deleted is brought back, and its experiment with it."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_run(run).info
        except MlflowException as failure:
            if failure.error_code != "RESOURCE_DOES_NOT_EXIST":  # it is not known whether it is there
                raise
            return False
        if found.experiment_id != self.experiment:
            return False
        if found.lifecycle_stage != "active":
            self.client.restore_run(run)
        return True

    def closed(self, parent: str) -> bool:
        """Whether a parent run is there and was ended with its result, so that nothing of its search is missing."""
        from mlflow.exceptions import MlflowException

        if not parent:
            return False
        try:
            found = self.client.get_run(parent).info
        except MlflowException as failure:
            if failure.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return bool(found.lifecycle_stage == "active" and found.status == "FINISHED")

    def _known_parent(self, search_id: str) -> str:
        found = self.client.search_runs([self.experiment], f"tags.search_id = '{search_id}'", max_results=1)
        return found[0].info.run_id if found else ""

    def _known_children(self) -> dict[str, tuple[str, str]]:
        """Run id and status of the parent's children, by trial."""
        children: dict[str, tuple[str, str]] = {}
        token = None
        while True:
            query = f"tags.`{PARENT}` = '{self.parent}'"
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            children |= {run.data.tags["trial"]: (run.info.run_id, run.info.status) for run in page}
            token = page.token
            if not token:
                return children

    def log_trial(self, record: TrialRecord) -> None:
        """Write a finished trial as a child run, all at once; what the test found goes to the runs of its students.

        A trial that has its run keeps it: one left unfinished by a crash is completed, none is written twice.
        """
        for trial, (accuracy, loss) in record.tested.items():
            self.client.log_metric(self.children[trial][0], "test/accuracy", accuracy)
            self.client.log_metric(self.children[trial][0], "test/loss", loss)
        if record.stage == TEST:
            return
        run, status = self.children.get(record.id, ("", ""))
        if status == ENDS[record.status]:
            return
        end = int(time.time() * 1000)
        start = end - int(record.seconds * 1000)
        tags = {
            PARENT: self.parent,
            "trial": record.id,
            "stage": record.stage,
            "status": record.status,
            **({"arm": ",".join(record.arms)} if record.arms else {}),
            **({"contender": record.contender, "fold": str(record.fold)} if record.contender else {}),
            **({"reason": record.reason} if record.reason else {}),
        }
        if not run:
            created = self.client.create_run(self.experiment, start_time=start, tags=tags, run_name=record.id)
            run = created.info.run_id
        elif status != "RUNNING":
            self._retag(run, tags)
        self._log_params(run, record.config)
        self._log_epochs(run, record, start)
        self.client.set_terminated(run, ENDS[record.status], end_time=end)
        self.children[record.id] = (run, ENDS[record.status])

    def _retag(self, run: str, tags: Mapping[str, str]) -> None:
        """Of a trial that failed and was tried again nothing stays of the first time."""
        for name, text in tags.items():
            self.client.set_tag(run, name, text)
        if "reason" in self.client.get_run(run).data.tags and "reason" not in tags:
            self.client.delete_tag(run, "reason")

    def _log_epochs(self, run: str, record: TrialRecord, start: int) -> None:
        from mlflow.entities import Metric

        elapsed = record.set_up_seconds
        values = []
        for epoch in record.epochs:
            elapsed += epoch.seconds
            stamp = start + int(elapsed * 1000)
            values += [Metric(name, value, stamp, epoch.epoch) for name, value in epoch.tracked().items()]
        for first in range(0, len(values), 1000):  # MLflow's limit per call
            self.client.log_batch(run, metrics=values[first : first + 1000])

    def _log_params(self, run: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(run, params=[Param(key, str(value)) for key, value in params.items()])

    def finish(self, status: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Close the parent run as FINISHED, FAILED or KILLED, with what came out; nothing if it was never opened."""
        if not self.parent:
            return
        for name, value in metrics.items():
            self.client.log_metric(self.parent, name, value)
        for name, text in tags.items():
            self.client.set_tag(self.parent, name, text)
        self.client.set_terminated(self.parent, status)

    def log_folder(self, folder: Path, name: str) -> None:
        """Copy a folder's files into the parent run's artifacts, under `name`."""
        self.client.log_artifacts(self.parent, str(folder), name)
