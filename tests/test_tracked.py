"""The tracking of a search when its server is away, mute, or comes back: nothing waits, nothing is lost."""

import contextlib
import http.server
import socket
import threading
import time

import pytest
from test_journal import record
from test_searcher import a_plan

from idat_tune import tracking
from idat_tune.journal import Journal
from idat_tune.search.callback import Callback
from idat_tune.search.manifest import JOURNAL, Manifest
from idat_tune.search.tracked import Tracked

RESULT = {"winner": None, "arms": {}, "verdict": "fine", "test_openings": 1}


class Heard(Callback):
    """Keeps what it was told."""

    def __init__(self):
        self.said = []

    def on_tracking_failure(self, sentence):
        self.said.append(sentence)

    def on_made_again(self, what):
        self.said.append(what)


@contextlib.contextmanager
def mute():
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def dead():
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def broken():
    """A server that has an error for everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(500)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def begin(tmp_path):
    plan = a_plan(tmp_path)
    plan.folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(plan.folder / JOURNAL)
    return Tracked(plan, journal, Manifest(plan, "hash"), Heard())


@pytest.mark.parametrize("server", [dead, mute, broken])
def test_a_server_that_takes_nothing_costs_seconds_and_two_lines(tmp_path, monkeypatch, server):
    with server() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # 5 unless the user says so
        tracked = begin(tmp_path)
        began = time.monotonic()
        tracked.lay_out()
        tracked.open()
        for number in range(50):
            tracked.log_trial(record(f"trial-{number:03d}"))
        tracked.finish(RESULT, exported=False)
        tracked.cut_off("KILLED", {})
        assert time.monotonic() - began < 8
    first, last = tracked.callback.said
    assert first.startswith(f"tracking at {address} failed (")
    assert first.endswith("); the search goes on, and tries again at its end")
    assert last.endswith("; what it lacks is sent when the same command is given again")
    assert tracked.owed


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """A folder with a store, which takes seconds to make."""
    out = tmp_path_factory.mktemp("laid out")
    tracking.lay_out(out)
    return out


def runs_of(out):
    tracker = tracking.Tracker(out, "digits")
    runs = tracker.client.search_runs([tracker.experiment])
    return {run.data.tags.get("trial", "parent"): run.info.status for run in runs}


def test_a_server_that_is_back_at_the_end_has_everything(tmp_path, laid_out, monkeypatch):
    tracked = begin(tmp_path)
    with dead() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        tracked.open()
    for name in ("trial-000", "trial-001"):
        tracked.journal.append(record(name))
        tracked.log_trial(record(name))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{laid_out}/mlflow.db")
    tracked.finish(RESULT, exported=False)
    assert not tracked.owed
    assert runs_of(laid_out) == {"parent": "FAILED", "trial-000": "FINISHED", "trial-001": "FINISHED"}
    assert len(tracked.callback.said) == 1
