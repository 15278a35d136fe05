"""MLflow: where runs are tracked, one parent, a child per trial, whatever became of the store in the meantime."""

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
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput, TrackingFailed
from idat_tune.journal import FAILED, Journal
from idat_tune.tracking import PARENT, Search, Tracker, check, follow_moved, lay_out, patient, store, uri
from idat_tune.tracking.runs import Run, child


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("tracked")


def a_search(out, name="a search", task="digits"):
    return Search(str(out), name, task, uuid.uuid4().hex, "hash", {"seed": "0"}, {"group": "embedded"})


def opened(search, known=""):
    """A tracker with the parent run of a search, which goes on."""
    tracker = Tracker(search)
    tracker.open(the_parent(search), known)
    return tracker


def the_parent(search, **changes):
    run = Run(search.name, 1_000, {"search_id": search.search_id}, dict(search.params))
    return dataclasses.replace(run, **changes)


def a_child(tracker, name="trial-000", **changes):
    one = dataclasses.replace(record(name), began=1.75e9, ended=1.75e9 + 3, **changes)
    return child(tracker.search, tracker.parent, Journal.remembered([one]), one)


@pytest.fixture
def tracker(out):
    return opened(a_search(out))


def children(tracker):
    runs = tracker.client.search_runs([tracker.experiment], f"tags.`{PARENT}` = '{tracker.parent}'")
    return {run.data.tags["trial"]: run for run in runs}


def test_a_long_trial_is_written_whole_in_calls_that_mlflow_takes(tracker):
    tracker.put(a_child(tracker, "long", epochs=tuple(epoch(number) for number in range(300))))
    history = tracker.client.get_metric_history(children(tracker)["long"].info.run_id, "train/loss")
    assert [metric.step for metric in history] == list(range(300))


def test_a_trial_has_the_settings_that_it_uses_and_no_others(tracker):
    for teacher in ("none", "glyph_small"):
        config = RunConfig.for_task("digits", {"teacher": teacher, "distill.loss": "mse"}).flat()
        tracker.put(a_child(tracker, teacher, config=config))
    alone, taught = (children(tracker)[name].data.params for name in ("none", "glyph_small"))
    assert "distill.loss" not in alone
    assert "adapter.scale" not in alone  # which a sequential adapter has none of
    assert taught["distill.loss"] == "mse"
    assert "distill.temperature" not in taught
    assert taught["optim.lr"] == alone["optim.lr"]


def test_a_parent_that_a_crash_left_unknown_is_found_again(out):
    """The sender was killed after the run was created and before anybody had kept its id."""
    search = a_search(out)
    assert opened(search).parent == opened(search).parent


def test_the_users_own_tracking_server_is_respected(monkeypatch, tmp_path):
    assert uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert uri(tmp_path) == "http://elsewhere:5000"


def test_nothing_is_tracked_globally(tracker):
    assert mlflow.active_run() is None


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
    assert Tracker(a_search(tmp_path)).experiment


def test_a_tracking_server_of_the_users_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    lay_out(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_failed_and_was_tried_again_shows_how_the_second_went(tracker):
    tracker.put(a_child(tracker, "again", status=FAILED, reason="its worker died", epochs=()))
    again = dataclasses.replace(a_child(tracker, "again", epochs=(epoch(0, 0.7),)), start=1_750_000_001_000)
    tracker.put(again)
    run = children(tracker)["again"]
    assert (run.info.status, run.info.start_time, run.data.tags["status"]) == ("FINISHED", again.start, "complete")
    assert run.data.metrics["val/accuracy"] == 0.7
    assert "reason" not in run.data.tags


@pytest.mark.parametrize("name", ["w?x", "a%20b", "h#h", "with space", "Überschuß", "q'q+r&s"])
def test_the_store_lies_in_its_folder_whatever_that_is_called(out, tmp_path, name):
    there = tmp_path / name
    there.mkdir()
    shutil.copy(store(out), store(there))
    search = a_search(there, task="sprites_ori")
    tracker = opened(search)
    labels = tmp_path / "student" / "labels.json"
    labels.parent.mkdir()
    labels.write_text("[]")
    ended = the_parent(search, status="FINISHED", end=2_000, artifacts=((labels, "best"),))
    tracker.put_parent(ended)
    assert {path.name for path in tmp_path.iterdir()} == {name, "student"}
    assert [path.name for path in there.rglob("labels.json")] == ["labels.json"]
    assert opened(search).has(ended)
    assert not opened(search).has(dataclasses.replace(ended, end=3_000))


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
    search = a_search(out, task="sprites_loc")
    first = opened(search)
    first.put(a_child(first))
    first.client.delete_experiment(first.experiment)
    opened(a_search(out, "another", "sprites_loc"))
    again = opened(search, first.parent)
    assert again.parent == first.parent
    again.put(a_child(again))
    assert list(children(again)) == ["trial-000"]


def test_a_parent_run_that_was_deleted_in_the_ui_comes_back(tracker):
    tracker.put(a_child(tracker))
    tracker.client.delete_run(tracker.parent)
    resumed = opened(tracker.search, tracker.parent)
    assert resumed.parent == tracker.parent
    assert list(children(resumed)) == ["trial-000"]


def test_a_parent_run_that_is_gone_for_good_is_made_anew(out):
    nobody = uuid.uuid4().hex
    assert opened(a_search(out), nobody).parent != nobody


def test_the_artifacts_of_a_store_whose_folder_was_moved_are_found_again(tmp_path, out):
    here, there, labels = tmp_path / "here", tmp_path / "there", tmp_path / "labels.json"
    here.mkdir()
    shutil.copy(store(out), store(here))
    labels.write_text("[]")
    search = a_search(here, task="sprites_ori")
    first = opened(search)
    first.put_parent(the_parent(search, status="FINISHED", end=2_000, artifacts=((labels, "best"),)))
    here.rename(there)
    follow_moved(there)  # as `ui` does
    client = mlflow.MlflowClient(uri(there))
    assert Path(client.download_artifacts(first.parent, "best")).joinpath("labels.json").is_file()
    moved = opened(dataclasses.replace(search, out=str(there)), first.parent)
    later = moved.client.create_run(moved.experiment).info.run_id
    for run in (first.parent, later):
        assert moved.client.get_run(run).info.artifact_uri.startswith(f"{there.as_uri()}/artifacts/")


def test_a_folder_without_a_store_has_nothing_to_follow(tmp_path):
    follow_moved(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_named_at_once(tmp_path):
    store(tmp_path).write_bytes(b"no database" * 100)
    began = time.monotonic()
    with pytest.raises(TrackingFailed, match=r"mlflow.db cannot be used .* move it away: the command of a search"):
        Tracker(a_search(tmp_path))
    assert time.monotonic() - began < 5


def test_the_users_own_run_and_settings_are_left_alone(tracker, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    tracker.put(a_child(tracker))
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
        Tracker(a_search(tmp_path))


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
            opened(a_search(tmp_path))
        server.shutdown()


def test_the_doctor_knows_a_tracking_uri_that_can_hold_no_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    found = doctor._tracking(tmp_path)
    assert not found.ok
    assert "a folder" in found.found
    assert found.remedy.startswith("name a database")
