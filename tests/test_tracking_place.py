"""Where in MLflow a search belongs: in its caller's experiment, below its caller's run."""

import mlflow
import pytest
from test_searcher import no_linear_arm  # noqa: F401
from test_tracked import finished, laid_out, out  # noqa: F401

from idat_tune import tracking
from idat_tune.search.manifest import of_folder
from idat_tune.search.tracked import described, track
from idat_tune.tracking.runs import Run


@pytest.fixture
def client(out):  # noqa: F811
    return mlflow.MlflowClient(tracking.uri(out))


@pytest.fixture
def running(out, client, monkeypatch):  # noqa: F811
    """A run that the caller has begun in the store that the search takes, and its experiment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri(out))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking.uri(out))
    experiment = client.create_experiment("a study")
    with mlflow.start_run(experiment_id=experiment) as run:
        yield run.info
    mlflow.set_tracking_uri(before)


def sent(client, experiment):
    """The run of the search and those of its trials, in an experiment."""
    runs = client.search_runs([experiment])
    parents = [run for run in runs if "search_id" in run.data.tags]
    return parents, [run for run in runs if "trial" in run.data.tags]


def test_a_named_experiment_takes_the_runs(out, client, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")  # of some other store, as none is named
    tracked = finished(out)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")  # that it was said once is enough
    assert track(tracked.search.folder)["runs"] == 6
    (parent,), trials = sent(client, client.get_experiment_by_name("mine").experiment_id)
    assert len(trials) == 5
    assert {trial.data.tags[tracking.PARENT] for trial in trials} == {parent.info.run_id}
    assert client.get_experiment_by_name("idat-tune/digits") is None
    assert track(tracked.search.folder)["runs"] == 0


def test_an_experiment_goes_by_its_id_in_the_store_that_is_named(out, client, monkeypatch):  # noqa: F811
    experiment = client.create_experiment("mine")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri(out))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    track(finished(out).search.folder)
    assert len(sent(client, experiment)[0]) == 1


def test_a_search_is_a_part_of_the_run_that_its_caller_has_begun(out, client, running):  # noqa: F811
    tracked = finished(out)
    track(tracked.search.folder)
    track(tracked.search.folder)
    (parent,), trials = sent(client, running.experiment_id)
    assert parent.data.tags[tracking.PARENT] == running.run_id
    assert {trial.data.tags[tracking.PARENT] for trial in trials} == {parent.info.run_id}
    assert client.get_run(running.run_id).info.status == "RUNNING"  # it is the caller's


def test_what_a_crash_left_unknown_is_found_below_the_callers_run_too(out, client, running):  # noqa: F811
    search = finished(out).search
    run = Run("s", 1, {"search_id": search.search_id, tracking.PARENT: running.run_id}, {})
    (made,) = {tracker.open(run) for tracker in (tracking.Tracker(search), tracking.Tracker(search))}
    assert client.get_run(made).info.experiment_id == running.experiment_id


def test_a_run_in_another_store_is_none_of_the_searchs(out, tmp_path, running, monkeypatch):  # noqa: F811
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.place(out)["run"] == running.run_id  # it happens to be the same file
    assert tracking.place(tmp_path / "elsewhere") == {}


def test_ids_say_nothing_in_another_store_and_names_do(out, client, running, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    tracked = finished(out)
    assert set(tracked.search.place) == {"store", "experiment", "run"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    moved = described(tracked.search.folder, of_folder(tracked.search.folder))
    assert moved.place == {"experiment": "mine"}


def test_a_callers_run_that_is_gone_leaves_the_search_in_its_tasks_experiment(out, client, running):  # noqa: F811
    tracked = finished(out)
    gone = {**tracked.search.place, "run": "0" * 32}
    tracker = tracking.Tracker(type(tracked.search)(**{**vars(tracked.search), "place": gone}))
    assert client.get_experiment(tracker.experiment).name == "idat-tune/digits"
