"""MLflow: one parent, a child per trial, nothing twice, nothing left running."""

import dataclasses
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import mlflow
import pytest
from test_journal import epoch, record

from idat_tune import doctor
from idat_tune.errors import BadInput, TrackingFailed
from idat_tune.journal import FAILED, FINAL, STOPPED, TEST
from idat_tune.tracking import PARENT, Tracker, check, lay_out, patient, store, uri


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


def test_a_run_that_failed_and_was_tried_again_shows_how_the_second_went(tracker):
    tracker.log_trial(record("again", status=FAILED, reason="its worker died", epochs=()))
    tracker.log_trial(record("again", epochs=(epoch(0, 0.7),)))
    run = children(tracker)["again"]
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "complete")
    assert run.data.metrics["val/accuracy"] == 0.7
    assert "reason" not in run.data.tags


@pytest.mark.parametrize("name", ["w?x", "a%20b", "h#h", "with space", "Überschuß", "q'q+r&s"])
def test_the_store_lies_in_its_folder_whatever_that_is_called(out, tmp_path, name):
    there = tmp_path / name
    there.mkdir()
    shutil.copy(store(out), store(there))
    tracker = Tracker(there, "sprites_ori")
    tracker.start("a search", {}, {"search_id": uuid.uuid4().hex})
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "labels.json").write_text("[]")
    tracker.log_folder(tmp_path / "student", "best")
    assert {path.name for path in tmp_path.iterdir()} == {name, "student"}
    assert [path.name for path in there.rglob("labels.json")] == ["labels.json"]
    assert Tracker(there, "sprites_ori").closed(tracker.parent) is False


def test_a_new_store_is_laid_out_where_it_belongs(tmp_path):
    there = tmp_path / "a?b%20c#d"
    lay_out(there)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.db")] == [Path(there.name, "mlflow.db")]
    assert [path.name for path in tmp_path.iterdir()] == [there.name]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("./mlruns", "is './mlruns', a folder, in which MLflow keeps no new runs; name a database (sqlite:////"),
        ("/tmp/mlruns", "a folder"),
        ("file:/tmp/mlruns", "a folder"),
        ("mlruns", "a folder"),
        ("http://", "which names no server"),
        ("http://[", "does not work here"),
        ("sqlite://", "which is in memory"),
        ("sqlite:///:memory:", "which is in memory"),
        ("sqlite:/relative", "does not work here"),
        ("postgresql+nothing://someone:secret@host/db", "does not work here (Can't load plugin"),
        ("s3://bucket/runs", "unsupported URI"),
        ("uc", "does not work here"),
        ("databricks", "does not work here (Reading Databricks credential configuration failed"),
    ],
)
def test_a_tracking_uri_that_can_hold_no_runs_is_refused_with_a_way_out(monkeypatch, caplog, tmp_path, given, sentence):
    monkeypatch.setenv("HOME", str(tmp_path))  # where a user may have credentials
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    with pytest.raises(BadInput) as caught:
        check()
    assert caplog.records == []
    assert sentence in str(caught.value)
    assert "or unset it" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "given", ["", "http://host:5000", "https://host/mlflow", "sqlite:////tmp/x.db", "sqlite:///x.db"]
)
def test_other_tracking_uris_are_asked_nothing_before_a_search(monkeypatch, given):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    check()


def test_an_experiment_that_was_deleted_in_the_ui_comes_back_with_its_runs(out):
    first = Tracker(out, "sprites_loc")
    tags = {"search_id": uuid.uuid4().hex}
    parent = first.start("a search", {}, tags)
    first.log_trial(record("trial-000"))
    first.client.delete_experiment(first.experiment)
    other = Tracker(out, "sprites_loc")
    other.start("another", {}, {"search_id": uuid.uuid4().hex})
    again = Tracker(out, "sprites_loc")
    assert again.start("a search", {}, tags, parent) == parent
    again.log_trial(record("trial-000"))
    assert list(children(again)) == ["trial-000"]


def test_a_parent_run_that_was_deleted_in_the_ui_comes_back(out, tracker):
    tracker.log_trial(record("trial-000"))
    tracker.client.delete_run(tracker.parent)
    resumed = Tracker(out, "digits")
    assert not resumed.closed(tracker.parent)
    assert resumed.start("a search", {}, {"search_id": "any"}, tracker.parent) == tracker.parent
    assert list(children(resumed)) == ["trial-000"]


def test_a_parent_run_that_is_gone_for_good_is_made_anew(out):
    tracker, nobody = Tracker(out, "digits"), uuid.uuid4().hex
    assert tracker.start("a search", {}, {"search_id": uuid.uuid4().hex}, parent=nobody) != nobody
    assert not tracker.closed(nobody)
    assert not tracker.closed("")
    tracker.finish("FINISHED", {}, {})
    assert tracker.closed(tracker.parent)


def test_the_artifacts_of_a_store_whose_folder_was_moved_are_found_again(tmp_path, out):
    here, there, student = (tmp_path / name for name in ("here", "there", "student"))
    for folder in (here, student):
        folder.mkdir()
    shutil.copy(store(out), store(here))
    (student / "labels.json").write_text("[]")
    first = Tracker(here, "sprites_ori")
    parent = first.start("a search", {}, {"search_id": uuid.uuid4().hex})
    first.log_folder(student, "best")
    here.rename(there)
    moved = Tracker(there, "sprites_ori")
    moved.start("a search", {}, {"search_id": "any"}, parent)
    assert Path(moved.client.download_artifacts(parent, "best")).joinpath("labels.json").is_file()
    later = moved.client.create_run(moved.experiment).info.run_id
    for run in (parent, later):
        assert moved.client.get_run(run).info.artifact_uri.startswith(f"{there.as_uri()}/artifacts/")


def test_a_damaged_store_is_named_at_once(tmp_path):
    store(tmp_path).write_bytes(b"no database" * 100)
    began = time.monotonic()
    with pytest.raises(TrackingFailed, match=r"mlflow.db cannot be used .* move it away: the command of a search"):
        Tracker(tmp_path, "digits")
    assert time.monotonic() - began < 5


def test_the_users_own_run_and_settings_are_left_alone(tracker, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    tracker.log_trial(record("trial-000"))
    assert children(tracker)["trial-000"].info.run_id != "0" * 32
    assert {run.info.experiment_id for run in children(tracker).values()} == {tracker.experiment}
    before = dict(os.environ)
    with patient():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"
    assert dict(os.environ) == before


def test_a_store_that_cannot_be_made_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/not/there/x.db")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(TrackingFailed, match=f"{tmp_path} cannot be written"):
        Tracker(tmp_path, "digits")


def test_a_server_that_is_no_tracking_server_is_told(tmp_path, monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(mlflow.exceptions.MlflowException, match="404"):
            Tracker(tmp_path, "digits").start("a", {}, {"search_id": "1"})
        server.shutdown()


def test_the_doctor_knows_a_tracking_uri_that_can_hold_no_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    found = doctor._tracking(tmp_path)
    assert not found.ok
    assert "a folder" in found.found
    assert found.remedy.startswith("name a database")
