"""MLflow: one parent, a child per trial, nothing twice, nothing left running."""

import dataclasses
import subprocess
import sys
import time
import uuid

import mlflow
import pytest
from test_journal import epoch, record

from idat_tune.journal import FAILED, FINAL, STOPPED, TEST
from idat_tune.tracking import PARENT, Tracker, lay_out, store, uri


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture
def tracker(out):
    tracker = Tracker(out, "digits")
    tracker.start("a search", {"trials": 3}, {"search_id": uuid.uuid4().hex, "group": "embedded"})
    return tracker


def children(tracker):
    runs = tracker.client.search_runs([tracker.experiment], f"tags.`{PARENT}` = '{tracker.parent}'")
    return {run.data.tags["trial"]: run for run in runs}


def test_a_trial_becomes_a_child_run_with_params_metrics_and_status(tracker):
    tracker.log_trial(record("trial-007", arms=("default",), epochs=(epoch(0, 0.4), epoch(1, 0.6)), seconds=3.0))
    run = children(tracker)["trial-007"]
    assert run.info.run_name == "trial-007"
    assert run.info.status == "FINISHED"
    assert run.data.params["adapter.kind"] == "sequential"
    assert run.data.metrics["val/accuracy"] == 0.6
    assert run.data.tags["arm"] == "default"
    history = tracker.client.get_metric_history(run.info.run_id, "val/accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.4), (1, 0.6)]
    assert (run.info.end_time - run.info.start_time) == 3000


def test_how_a_trial_ended_is_its_status_and_tag(tracker):
    tracker.log_trial(record("stopped", status=STOPPED))
    tracker.log_trial(record("failed", status=FAILED, reason="Diverged: the loss became nan", epochs=()))
    runs = children(tracker)
    assert (runs["stopped"].info.status, runs["stopped"].data.tags["status"]) == ("KILLED", "stopped")
    assert (runs["failed"].info.status, runs["failed"].data.tags["reason"]) == (
        "FAILED",
        "Diverged: the loss became nan",
    )


def test_what_the_test_found_goes_to_the_runs_of_its_students(tracker):
    tracker.log_trial(record("final-0-winner", stage=FINAL))
    tracker.log_trial(record("test", stage=TEST, tested={"final-0-winner": (0.9, 0.25)}, epochs=()))
    runs = children(tracker)
    assert set(runs) == {"final-0-winner"}
    assert runs["final-0-winner"].data.metrics["test/accuracy"] == 0.9


def test_a_resumed_search_keeps_its_runs_and_writes_none_twice(out, tracker):
    tracker.log_trial(record("trial-000"))
    resumed = Tracker(out, "digits")
    assert resumed.start("a search", {}, {"search_id": "any"}, parent=tracker.parent) == tracker.parent
    resumed.log_trial(record("trial-000"))
    resumed.log_trial(record("trial-001"))
    runs = resumed.client.search_runs([tracker.experiment], f"tags.`{PARENT}` = '{tracker.parent}'")
    assert sorted(run.data.tags["trial"] for run in runs) == ["trial-000", "trial-001"]


def test_a_run_that_a_crash_left_open_is_completed(out, tracker):
    tags = {PARENT: tracker.parent, "trial": "trial-000"}
    tracker.client.create_run(tracker.experiment, tags=tags)
    resumed = Tracker(out, "digits")
    resumed.start("a search", {}, {"search_id": "any"}, parent=tracker.parent)
    resumed.log_trial(record("trial-000"))
    runs = children(resumed)
    assert len(runs) == 1
    assert runs["trial-000"].info.status == "FINISHED"
    assert runs["trial-000"].data.metrics["val/accuracy"] == 0.5


def test_a_long_trial_is_written_whole(tracker):
    long = dataclasses.replace(record("long"), epochs=tuple(epoch(number) for number in range(300)))
    tracker.log_trial(long)
    history = tracker.client.get_metric_history(children(tracker)["long"].info.run_id, "train/loss")
    assert len(history) == 300


def test_the_parent_is_closed_with_what_came_out(tracker):
    tracker.finish("FINISHED", {"winner/test_accuracy": 0.9}, {"verdict": "fine"})
    run = tracker.client.get_run(tracker.parent)
    assert (run.info.status, run.data.metrics, run.data.tags["verdict"]) == (
        "FINISHED",
        {"winner/test_accuracy": 0.9},
        "fine",
    )


def test_the_users_own_tracking_server_is_respected(monkeypatch, tmp_path):
    assert uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert uri(tmp_path) == "http://elsewhere:5000"


def test_nothing_is_tracked_globally(tracker):
    assert mlflow.active_run() is None


def test_a_parent_that_a_crash_left_unknown_is_found_again(out):
    """The driver was killed after the run was created and before it had kept its id."""
    tags = {"search_id": uuid.uuid4().hex}
    first, second = Tracker(out, "digits"), Tracker(out, "digits")
    assert second.start("a search", {}, tags) == first.start("a search", {}, tags)


def test_a_store_whose_making_was_killed_is_made_again(tmp_path):
    code = f"import pathlib; from idat_tune.tracking import lay_out; lay_out(pathlib.Path({str(tmp_path)!r}))"
    making = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    making.kill()
    making.wait()
    assert not store(tmp_path).exists()
    lay_out(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert Tracker(tmp_path, "digits").experiment


def test_a_tracking_server_of_the_users_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    lay_out(tmp_path)
    assert list(tmp_path.iterdir()) == []
