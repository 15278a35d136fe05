"""The views of a search in MLflow's UI: what they hold, and that they are kept once."""

import base64
import dataclasses
import json
import zlib

import pytest
from mlflow.exceptions import MlflowException
from test_searcher import no_linear_arm  # noqa: F401
from test_tracked import finished, laid_out, out  # noqa: F401

from idat_tune import tracking
from idat_tune.tracking.sender import send_all
from idat_tune.tracking.views import TAG, links, views


def unpacked(tag):
    kind, _, packed = json.loads(tag)["state"].partition(";")
    assert kind == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_view_shows_what_was_searched_and_draws_what_every_run_has(out):  # noqa: F811
    search = finished(out).search
    assert {"teacher", "optim.lr", "distill.temperature", "adapter.scale"} <= set(search.searched)
    assert "optim.lr" in search.always
    assert not {"distill.temperature", "adapter.scale"} & set(search.always)  # a run without is not drawn at all
    found = {key.rpartition("-")[2]: unpacked(tag) for key, tag in views(search, "abc", 1_000).items()}
    assert set(found) == {"trials", "charts", "outcome"}
    assert all("'abc'" in state["searchFilter"] for state in found.values())
    assert "params.`distill.temperature`" in found["trials"]["selectedColumns"]
    charts = {chart["type"]: chart for chart in found["charts"]["compareRunCharts"]}
    assert charts["PARALLEL"]["selectedParams"] == list(search.always)
    assert all(len(tag) < 5000 for tag in views(search, "a" * 32, 1_000).values())  # what MLflow keeps in a tag


def test_of_a_space_with_nothing_in_it_only_figures_are_drawn(out):  # noqa: F811
    search = dataclasses.replace(finished(out).search, searched=(), always=())
    charts = unpacked(views(search, "abc", 1)[f"{TAG}abc-charts"])["compareRunCharts"]
    assert [chart["type"] for chart in charts] == ["LINE", "SCATTER"]


def test_views_are_kept_once_and_linked_newest_search_first(out, monkeypatch):  # noqa: F811
    tracked = finished(out)
    send_all(tracked.search, tracked.journal.path)
    tracker = tracking.Tracker(tracked.search)
    found = dict(tracker.client.get_experiment(tracker.experiment).tags)
    kept = {key for key in found if key.startswith(TAG)}
    assert len(kept) == 3
    monkeypatch.setattr(tracker.client, "set_experiment_tag", lambda *about: pytest.fail(f"sent again: {about}"))
    tracker.parent = next(iter(kept)).removeprefix(TAG).rpartition("-")[0]
    tracker.put_views(json.loads(found[f"{TAG}{tracker.parent}-trials"])["createdAt"])
    later = views(dataclasses.replace(tracked.search, name="later"), "def", 2**42)
    tags = [{"key": key, "value": value} for key, value in {**found, **later, "mlflow.note.content": "x"}.items()]
    listed = links([{"experiment_id": "7", "tags": tags}, {"experiment_id": "8"}], "http://here:1")
    assert [name for name, _ in listed] == [
        *("digits / later: trials", "digits / later: charts", "digits / later: outcome"),
        *("digits / s: trials", "digits / s: charts", "digits / s: outcome"),
    ]
    place = "http://here:1/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey"
    assert listed[0][1] == f"{place}=def-trials"
    assert listed[1][1] == f"{place}=def-charts&compareRunsMode=CHART"


def test_a_store_that_takes_no_views_gets_all_the_rest(out, monkeypatch):  # noqa: F811
    def refuse(*_):
        raise MlflowException("you may not")

    monkeypatch.setattr("mlflow.MlflowClient.set_experiment_tag", refuse)
    tracked = finished(out)
    assert send_all(tracked.search, tracked.journal.path).written == 6
