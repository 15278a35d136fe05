"""The only door to MLflow: a parent run per search, a child run per trial, artifacts."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idat_tune.journal import COMPLETE, FAILED, STOPPED, TEST, TrialRecord

PARENT = "mlflow.parentRunId"
ENDS = {COMPLETE: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}  # MLflow has no status of its own for stopped


def uri(out: Path) -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, or an SQLite store under `out`.

    Absolute, because Ray changes the working directory of its workers.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store(out)}"


def store(out: Path) -> Path:
    """The file of the embedded SQLite store."""
    return out.absolute() / "mlflow.db"


def server_command(out: Path, host: str, port: int) -> list[str]:
    """The arguments that start MLflow's UI on what `out` holds."""
    # Through this very Python, whose folder need not be on the path.
    mlflow = [sys.executable, "-m", "mlflow"]
    return [*mlflow, "server", "--backend-store-uri", uri(out), "--host", host, "--port", str(port)]


def lay_out(out: Path) -> None:
    """Make the embedded store, if that is where runs are tracked and it is not there yet; takes seconds.

    Made beside and moved into its place when whole: MLflow refuses one that a crash left half made, and two searches
    that start at once do not disturb each other.
    """
    final = store(out)
    if uri(out) != f"sqlite:///{final}" or final.exists():
        return
    import mlflow

    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f".{final.name}.*"):
        if not Path(f"/proc/{left.suffix[1:]}").exists():  # of a process that is no more
            left.unlink(missing_ok=True)
    partial = out.absolute() / f".{final.name}.{os.getpid()}"
    partial.unlink(missing_ok=True)
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments(max_results=1)
    with contextlib.suppress(FileExistsError):  # another search was faster
        os.link(partial, final)
    partial.unlink()


def rehearse(out: Path, task: str) -> None:
    """Take the time that opening the embedded store takes, on a copy; a server elsewhere is left alone."""
    if uri(out) != f"sqlite:///{store(out)}":
        return
    with tempfile.TemporaryDirectory() as folder:
        if store(out).exists():
            shutil.copy(store(out), store(Path(folder)))
        lay_out(Path(folder))
        Tracker(Path(folder), task)


class Tracker:
    """The MLflow runs of one search; the driver has the only one, so that there is one writer."""

    def __init__(self, out: Path, task: str):
        import mlflow

        self.uri = uri(out)
        self.client = mlflow.MlflowClient(tracking_uri=self.uri)
        self.experiment = self._experiment(f"idat-tune/{task}", out)
        self.parent = ""
        self.children: dict[str, tuple[str, str]] = {}  # of the parent, by trial: run id and status

    def _experiment(self, name: str, out: Path) -> str:
        known = self.client.get_experiment_by_name(name)
        if known is not None:
            return known.experiment_id
        local = self.uri.startswith("sqlite:")
        location = (out.absolute() / "artifacts").as_uri() if local else None
        return self.client.create_experiment(name, artifact_location=location)

    def start(self, search: str, params: Mapping[str, Any], tags: Mapping[str, str], parent: str = "") -> str:
        """Open the parent run of a search, or open it again; its id.

        Args:
            search: its name.
            params: of the parent run.
            tags: likewise; `search_id` tells searches apart and finds a run that a crash left behind unknown.
            parent: the run's id, if it is known.
        """
        parent = parent if parent and self._exists(parent) else self._known_parent(tags["search_id"])
        if parent:
            self.client.update_run(parent, status="RUNNING")
            self.parent = parent
            self.children = self._known_children()
            return parent
        run = self.client.create_run(self.experiment, run_name=search, tags={"search": search, **tags})
        self.parent = run.info.run_id
        self._log_params(self.parent, params)
        return self.parent

    def _exists(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run)
        except MlflowException:
            return False
        return True

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
        if status and status != "RUNNING":
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
        self._log_params(run, record.config)
        self._log_epochs(run, record, start)
        self.client.set_terminated(run, ENDS[record.status], end_time=end)
        self.children[record.id] = (run, ENDS[record.status])

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
