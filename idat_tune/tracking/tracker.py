"""Puts runs into MLflow, each once: what is there is looked up, what is missing is added, how it ended comes last."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from idat_tune.journal import Journal
from idat_tune.tracking.registry import put_model
from idat_tune.tracking.runs import PARENT, RUNNING, TRIAL, Metric, Run, Search
from idat_tune.tracking.store import embedded, reach, store, uri
from idat_tune.tracking.views import views

ARTIFACTS = "artifacts"  # of the embedded store, beside it
MOST_METRICS = 800  # in a call; MLflow takes 1,000 of all kinds, of which at most 100 params and 100 tags
PAGE = 1000  # runs that are looked up in a call
DIGEST = 36  # characters of a data set's hash that MLflow keeps
OURS = "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%/artifacts'"
# Their places are absolute. Of a model version there are two: where it is from, and where it is kept.
MOVED = (
    "UPDATE experiments SET artifact_location = :new || substr(artifact_location, :length + 1) "
    "WHERE substr(artifact_location || '/', 1, :length + 1) = :old || '/'",
    "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, :length + 1) "
    "WHERE substr(artifact_uri || '/', 1, :length + 1) = :old || '/'",
    "UPDATE model_versions SET source = :new || substr(source, :length + 1) "
    "WHERE substr(source || '/', 1, :length + 1) = :old || '/'",
    "UPDATE model_versions SET storage_location = :new || substr(storage_location, :length + 1) "
    "WHERE substr(storage_location || '/', 1, :length + 1) = :old || '/'",
)


def follow_moved(out: Path) -> None:
    """Let the artifacts of the embedded store be found where they are now: MLflow keeps their absolute place for good.

    Nothing where there is no such store, or it holds no runs yet.
    """
    if not embedded(out) or not store(out).exists():
        return
    new = (out.absolute() / ARTIFACTS).as_uri()
    with closing(sqlite3.connect(store(out))) as connection, connection:
        places = connection.execute(OURS)
        for (old,) in places.fetchall():
            if old != new:
                for statement in MOVED:
                    connection.execute(statement, {"old": old, "new": new, "length": len(old)})


@dataclass
class _There:
    """A run as the store has it, as far as that is known."""

    id: str
    start: int
    status: str
    end: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: frozenset[str] = frozenset()
    figures: set[tuple[str, float]] = field(default_factory=set)  # names and values
    data: bool = False  # whether it says which images it is about
    curve: int = 0  # metrics of the curve that this session has sent


class Tracker:
    """The MLflow runs of one search; whoever holds it is the only one who writes them."""

    def __init__(self, search: Search, alive: Callable[[], None] = lambda: None):
        """Reach the store; `alive` is called after everything that it has taken.

        Raises:
            TrackingFailed: it cannot be reached.
        """
        import mlflow

        self.out = Path(search.out)
        self.search = search
        self.alive = alive
        self.written = 0  # runs that were made or ended
        reach(uri(self.out))
        follow_moved(self.out)
        self.client = mlflow.MlflowClient(tracking_uri=uri(self.out))
        self.parent = ""
        self._parent: _There | None = None
        self._children: dict[str, _There] = {}

    @cached_property
    def experiment(self) -> str:
        """The id of the experiment, which is made if it is not there, and brought back if it was deleted.

        The caller's if there is one, else the task's.
        """
        from mlflow.exceptions import MlflowException

        found = self._callers()
        if found:
            return found
        name = self.search.place.get("experiment", f"idat-tune/{self.search.task}")
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
        return str(known.experiment_id)

    def _callers(self) -> str | None:
        """The id of the experiment in which the run is that the search is a part of, or else of one that is named."""
        from mlflow.exceptions import MlflowException

        place = self.search.place
        for what, look in (
            ("run", lambda given: self.client.get_run(given).info.experiment_id),
            ("experiment_id", lambda given: self.client.get_experiment(given).experiment_id),
        ):
            if what in place:
                try:
                    return str(look(place[what]))
                except MlflowException as failure:
                    if failure.error_code != "RESOURCE_DOES_NOT_EXIST":
                        raise
        return None

    @property
    def children(self) -> dict[str, str]:
        """Ids of the trials' runs, by trial."""
        return {trial: there.id for trial, there in self._children.items()}

    def open(self, run: Run, known: str = "") -> str:
        """Find the parent run and what it has, or make it; its id.

        Args:
            run: the parent run as it is to be.
            known: its id, if it is known; else it is found by its search, as where a crash came before it was kept.
        """
        self._parent = (self._by_id(known) if known else None) or self._by_search() or self._made(run)
        self.parent = self._parent.id
        self._look_for_children()
        return self.parent

    def put_views(self, began: int) -> None:
        """Let MLflow's UI keep views of the search; whether it takes them matters to nothing else."""
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            known = self.client.get_experiment(self.experiment).tags
            for key, value in views(self.search, self.parent, began).items():
                if known.get(key) != value:
                    self.client.set_experiment_tag(self.experiment, key, value)
                    self.alive()

    def put_model(self, journal: Journal) -> None:
        """Register the student of the search, which is finished."""
        put_model(self.client, self.search, self.parent, journal, self.alive)

    def has(self, run: Run) -> bool:
        """Whether the parent run has ended as it is to end; that is done last, so that then nothing is missing."""
        assert self._parent is not None
        return self._ended(self._parent, run)

    def put_parent(self, run: Run) -> None:
        """Bring the parent run to what it is to hold; to its end only after all of its trials."""
        assert self._parent is not None
        self._put(self._parent, run)

    @staticmethod
    def _ended(there: _There, run: Run) -> bool:
        return run.status != RUNNING and there.status == run.status and (there.end == run.end or not run.timed)

    def put(self, run: Run) -> None:
        """Bring a trial's run to what it is to hold.

        One that another attempt at the trial began, which came to nothing or failed, is deleted.
        """
        there = self._children.get(run.name)
        if there and run.timed and there.start != run.start:
            self.delete(run.name)
            there = None
        if there is None:
            there = self._children[run.name] = self._made(run)
        self._put(there, run)

    def delete(self, trial: str) -> None:
        """Delete the run of a trial that came to nothing."""
        self.client.delete_run(self._children[trial].id)
        self.alive()
        del self._children[trial]

    def _made(self, run: Run) -> _There:
        made = self.client.create_run(self.experiment, run.start, dict(run.tags), run.name)
        self.alive()
        return _There(made.info.run_id, run.start, RUNNING, None, dict(run.tags))

    def _put(self, there: _There, run: Run) -> None:
        if there.status != RUNNING and run.status == RUNNING:
            self.client.update_run(there.id, status=RUNNING)
            there.status = RUNNING
        if not there.data:
            self._log_data(there)
        curve = run.curve[there.curve :] if there.status == RUNNING else ()
        self._log(there, run, [*curve, *(metric for metric in run.figures if metric[:2] not in there.figures)])
        if "reason" in there.tags and "reason" not in run.tags and run.status != RUNNING:  # of an end before
            self.client.delete_tag(there.id, "reason")
        there.curve, there.figures, there.tags = len(run.curve), {metric[:2] for metric in run.figures}, run.tags
        if run.status != RUNNING and not self._ended(there, run):
            self._end(there, run)

    def _end(self, there: _There, run: Run) -> None:
        for path, folder in run.artifacts:
            self.client.log_artifact(there.id, str(path), folder or None)
            self.alive()
        self.client.set_terminated(there.id, run.status, run.end)
        self.alive()
        there.status, there.end = run.status, run.end
        self.written += 1

    def _log_data(self, there: _There) -> None:
        """Say which images it is about."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        images = Dataset(self.search.task, self.search.data_hash[:DIGEST], "local", self.search.task)
        self.client.log_inputs(there.id, [DatasetInput(images, [InputTag("mlflow.data.context", "train")])])
        self.alive()
        there.data = True

    def _log(self, there: _There, run: Run, metrics: list[Metric]) -> None:
        """Send what is not there, params first, in as few calls as MLflow takes."""
        from mlflow.entities import Metric as Measured
        from mlflow.entities import Param, RunTag

        params = [Param(name, text) for name, text in run.params.items() if name not in there.params]
        tags = [RunTag(name, text) for name, text in run.tags.items() if there.tags.get(name) != text]
        values = [Measured(name, value, stamp, step) for name, value, stamp, step in metrics]
        if not (params or tags or values):
            return
        for first in range(0, max(len(values), 1), MOST_METRICS):
            self.client.log_batch(there.id, values[first : first + MOST_METRICS], params, tags)
            self.alive()
            params, tags = [], []
        there.params = frozenset(run.params)

    def _by_id(self, run: str) -> _There | None:
        """The run of that id, if it is there; one that was deleted is brought back, and its experiment with it."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_run(run)
        except MlflowException as failure:
            if failure.error_code != "RESOURCE_DOES_NOT_EXIST":  # it is not known whether it is there
                raise
            return None
        if found.info.experiment_id != self.experiment:
            return None
        if found.info.lifecycle_stage != "active":
            self.client.restore_run(run)
        return _there(found)

    def _by_search(self) -> _There | None:
        """The parent run of this search; where a slow server has made it twice, the first of them stays."""
        query = f"tags.search_id = '{self.search.search_id}'"
        found = [run for run in self._pages(query) if TRIAL not in run.data.tags]
        found.sort(key=lambda run: run.info.run_id)
        for other in found[1:]:
            self.client.delete_run(other.info.run_id)
        return _there(found[0]) if found else None

    def _look_for_children(self) -> None:
        """Know the parent's children; of two of one trial, which a slow server has made, one that has ended stays."""
        self._children = {}
        for run in sorted(self._pages(f"tags.`{PARENT}` = '{self.parent}'"), key=lambda run: run.info.run_id):
            trial = run.data.tags[TRIAL]
            kept = self._children.get(trial)
            if kept and kept.status == RUNNING:
                self.delete(trial)
            elif kept:
                self.client.delete_run(run.info.run_id)
                continue
            self._children[trial] = _there(run)

    def _pages(self, query: str) -> list[Any]:
        runs, token = [], None
        while True:
            page = self.client.search_runs([self.experiment], query, max_results=PAGE, page_token=token)
            self.alive()
            runs += page
            token = page.token
            if not token:
                return runs


def _there(run: Any) -> _There:
    data, info = run.data, run.info
    return _There(
        info.run_id,
        info.start_time,
        info.status,
        info.end_time,
        data.tags,
        frozenset(data.params),
        set(data.metrics.items()),
        bool(run.inputs and run.inputs.dataset_inputs),
    )
