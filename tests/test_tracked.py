"""The tracking of a search when its store is away, mute, killed or comes back: nothing waits, nothing is lost."""

import contextlib
import dataclasses
import http.server
import json
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import command
from test_journal import epoch, record
from test_searcher import a_plan, no_linear_arm  # noqa: F401

from idat_tune import tracking
from idat_tune.errors import BadInput, TrackingFailed
from idat_tune.journal import CONFIRM, FAILED, FINAL, STOPPED, TEST, Journal
from idat_tune.journal.state import BEGUN, BROKE, DONE, INTERRUPTED, WINNER
from idat_tune.search.callback import Callback
from idat_tune.search.holding import locked
from idat_tune.search.manifest import JOURNAL, Manifest
from idat_tune.search.tracked import Tracked, described, track
from idat_tune.tracking import sender as sending
from idat_tune.tracking.sender import Sender, listen, send_all, serve

BEGIN = {"trials": 3, "seeds": 1, "reopen_test": False, "sampler": "tpe", "stopping": "halving"}
RESULT = {
    "winner": {
        "trial": "trial-000",
        "val_accuracy": 0.5,
        "confirmed": {"mean": 0.5, "standard_error": 0.01, "folds": 1},
        "test_accuracy": {"mean": 0.9, "std": None, "seeds": 1},
        "trainable_params": 7,
    },
    "arms": {"default": None},
    "comparisons": [
        {"ours": "winner", "theirs": "default", "split": "test", "mean": 0.02, "interval": [0.01, 0.03]},
        {"ours": "winner", "theirs": "default", "split": "confirm", "mean": 0.01, "interval": None},
    ],
    "verdict": "fine",
    "test_openings": 1,
    "seconds": 60.0,
}


class Clock:
    """A clock that moves on by a quarter of a second whenever it is read."""

    def __init__(self):
        self.now = 1.75e9

    def __call__(self):
        self.now += 0.25
        return self.now


class Heard(Callback):
    """Keeps what it was told."""

    def __init__(self):
        self.said = []

    def on_tracking_failure(self, sentence):
        self.said.append(sentence)

    on_tracking_back = on_made_again = on_tracking_failure


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

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """A folder with a store, which takes seconds to make."""
    out = tmp_path_factory.mktemp("laid out")
    tracking.lay_out(out)
    return out


@pytest.fixture
def out(tmp_path, laid_out):
    """A folder of searches with an empty store of its own."""
    shutil.copy(tracking.store(laid_out), tracking.store(tmp_path))
    return tmp_path


def begin(out):
    """A search that is about to begin: its journal has a clock that only it moves."""
    plan = a_plan(out)
    plan.folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(plan.folder / JOURNAL, Clock())
    journal.make()
    return Tracked(plan, journal, Manifest(plan, "hash"), Heard())


def live(journal, name, **changes):
    """What a record of a trial that took a second is, which begins now."""
    return record(name, began=journal.clock(), seconds=1.0, set_up_seconds=0.1, trainable_params=7, **changes)


def play(journal, end=DONE):
    """A small search with trials of every kind; yields after every line."""
    journal.decide(BEGUN, **BEGIN)
    yield
    for trial in (
        live(journal, "trial-000", arms=("default",), epochs=tuple(epoch(n, 0.3 + n / 10) for n in range(3))),
        live(journal, "trial-001", status=STOPPED),
        live(journal, "trial-002", status=FAILED, reason="Diverged: nan", epochs=()),
        live(journal, "confirm-0-trial-000", stage=CONFIRM, contender="trial-000", fold=0),
    ):
        journal.append(trial)
        yield
    journal.decide(WINNER, trial="trial-000")
    yield
    journal.append(live(journal, "final-0-trial-000", stage=FINAL, arms=("winner",), contender="trial-000"))
    yield
    journal.append(record("test", stage=TEST, tested={"final-0-trial-000": (0.9, 0.25)}, epochs=()))
    yield
    about = {DONE: {"result": RESULT}, BROKE: {"reason": "no room", "result": None}, INTERRUPTED: {}}[end]
    journal.decide(end, **about)
    best = journal.path.parent / "best"
    best.mkdir(exist_ok=True)
    (best / "labels.json").write_text("[]")
    yield


def finished(out, end=DONE):
    """A search that has ended, of which nothing was sent."""
    tracked = begin(out)
    for _ in play(tracked.journal, end):
        pass
    return tracked


def held(out, uri=None):
    """All that the store has of a search's runs, without the ids that it gives them."""
    import mlflow

    client = mlflow.MlflowClient(uri or tracking.uri(out))
    experiment = client.get_experiment_by_name("idat-tune/digits").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(set(names.values())) == len(names)
    found = {}
    for run in runs:
        tags = {name: names.get(text, text) for name, text in run.data.tags.items()}
        history = {
            name: sorted((m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }
        inputs = [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs]
        files = {file.path for folder in ("", "best") for file in client.list_artifacts(run.info.run_id, folder)}
        times = run.info.status, run.info.start_time, run.info.end_time
        found[run.info.run_name] = (times, tags, run.data.params, history, inputs, files)
    return found


def test_all_of_a_search_is_in_its_runs(out):
    tracked = finished(out)
    journal = tracked.journal
    assert send_all(tracked.search, journal.path).written == 6
    runs = held(out)
    assert set(runs) == {"s", *(r.id for r in journal.records if r.stage != TEST)}
    by_id = {one.id: one for one in journal.records}
    for name, (times, tags, params, _, inputs, _) in runs.items():
        if name != "s":
            assert times[1:] == (by_id[name].started_ms, by_id[name].ended_ms)
            assert tags[tracking.PARENT] == "s"
            assert params["adapter.kind"] == "sequential"
        assert inputs == [("digits", "hash")]
    assert {name: (run[0][0], run[1].get("status")) for name, run in runs.items()} == {
        "s": ("FINISHED", "finished"),
        "trial-000": ("FINISHED", "complete"),
        "trial-001": ("FINISHED", "stopped"),
        "trial-002": ("FAILED", "failed"),
        "confirm-0-trial-000": ("FINISHED", "complete"),
        "final-0-trial-000": ("FINISHED", "complete"),
    }
    _, tags, _, history, _, _ = runs["trial-000"]
    start = by_id["trial-000"].started_ms
    assert history["val/accuracy"] == [(n, start + 100 + 500 * (n + 1), 0.3 + n / 10) for n in range(3)]
    last = {name: values[-1][-1] for name, values in history.items()}
    assert (last["epochs_run"], last["trainable_params"], last["seconds"], last["confirmed/accuracy"]) == (3, 7, 1, 0.5)
    assert last["score"] == by_id["trial-000"].score
    assert runs["final-0-trial-000"][3]["test/accuracy"] == [(0, by_id["test"].ended_ms, 0.9)]
    assert runs["trial-002"][1]["reason"] == "Diverged: nan"


def test_the_run_of_the_search_says_what_came_out(out):
    tracked = finished(out)
    send_all(tracked.search, tracked.journal.path)
    times, tags, params, history, _, files = held(out)["s"]
    assert times[1:] == (
        int(tracked.journal.state.first.time * 1000),
        int(tracked.journal.state.end.time * 1000),
    )
    assert (params["trials"], params["space"], params["fixed.epochs"]) == ("3", "embedded", "2")
    assert (tags["winner.trial"], tags["winner.run_id"], tags["verdict"]) == ("trial-000", "trial-000", "fine")
    assert tags["mlflow.note.content"].startswith("fine\n\n| | trial |")
    assert "| winner | trial-000 | 50.00 % | 50.00 % | 90.00 % | 7 |" in tags["mlflow.note.content"]
    found = {name: values[0][-1] for name, values in history.items()}
    assert (found["test/accuracy"], found["winner/test_accuracy"], found["trainable_params"]) == (0.9, 0.9, 7)
    assert (found["winner_minus_default/test/low"], found["winner_minus_default/test/high"]) == (0.01, 0.03)
    assert found["confirmed/accuracy/low"] < 0.5 < found["confirmed/accuracy/high"]
    assert {"best/labels.json", "manifest.json"} <= files


@pytest.mark.parametrize(
    ("end", "status", "tag"), [(BROKE, "FAILED", "failed"), (INTERRUPTED, "KILLED", "interrupted")]
)
def test_a_search_that_did_not_get_to_its_end_says_how_it_ended(out, end, status, tag):
    tracked = finished(out, end)
    send_all(tracked.search, tracked.journal.path)
    times, tags, *_ = held(out)["s"]
    assert (times[0], tags["status"], tags.get("reason")) == (status, tag, "no room" if end == BROKE else None)


def test_what_is_sent_twice_is_there_once(out):
    tracked = finished(out)
    sent = send_all(tracked.search, tracked.journal.path)
    before = held(out)
    assert send_all(tracked.search, tracked.journal.path, sent.run).written == 0
    assert send_all(tracked.search, tracked.journal.path).written == 0  # whose id was not kept
    assert held(out) == before


class Killed(BaseException):
    """What no code of ours catches."""


WRITES = ("create_experiment", "create_run", "log_batch", "log_inputs", "log_artifact", "set_terminated", "delete_run")


class Fate:
    """Kills before or after one of MLflow's writing calls."""

    def __init__(self, monkeypatch, at=None, after=False):
        import mlflow

        self.left, self.after, self.calls = at, after, 0
        for name in WRITES:
            monkeypatch.setattr(mlflow.MlflowClient, name, self._fated(getattr(mlflow.MlflowClient, name)))

    def _fated(self, call):
        def fated(client, *about, **more):
            self.calls += 1
            fatal = self.calls == self.left
            if fatal and not self.after:
                raise Killed
            found = call(client, *about, **more)
            if fatal:
                raise Killed
            return found

        return fated


def lived(out):
    """A search that was sent while it went on, trials that run included."""
    tracked = begin(out)
    sender = Sender(tracked.search, Journal.followed(tracked.journal.path))
    journal = tracked.journal
    for _ in play(journal):
        # Two epochs of the next trial are seen before it has ended; its record begins at the same moment.
        sender.send()
    sender.send(ended=True)
    return tracked


def test_a_search_that_was_sent_as_it_went_is_as_one_that_was_sent_later(out, tmp_path_factory, laid_out):
    lived(out)
    later = tmp_path_factory.mktemp("later")
    shutil.copy(tracking.store(laid_out), tracking.store(later))
    shutil.copytree(out / "s", later / "s")
    send_all(described(later / "s", Manifest(a_plan(later), "hash").content), later / "s" / JOURNAL)
    assert held(later) == held(out)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_call_and_sent_again_the_store_is_as_if_undisturbed(out, laid_out, monkeypatch, after):
    tracked = finished(out)
    with pytest.MonkeyPatch.context() as patch:
        fate = Fate(patch)
        send_all(tracked.search, tracked.journal.path)
    wanted = held(out)
    assert fate.calls > 15
    for call in range(1, fate.calls + 1):
        shutil.copy(tracking.store(laid_out), tracking.store(out))
        shutil.rmtree(out / "artifacts")
        with pytest.MonkeyPatch.context() as patch:
            Fate(patch, call, after)
            with pytest.raises(Killed):
                send_all(tracked.search, tracked.journal.path)
        send_all(tracked.search, tracked.journal.path)
        assert held(out) == wanted, call


def test_a_sender_that_fails_at_any_call_goes_on_where_it_was(out, laid_out):
    """The same process, which must forget what it took for sent."""
    tracked = begin(out)
    sender = Sender(tracked.search, Journal.followed(tracked.journal.path))
    failures = 0
    for number, _ in enumerate(play(tracked.journal)):
        for call in range(1, 4):
            with pytest.MonkeyPatch.context() as patch:
                fate = Fate(patch, call, after=bool((number + call) % 2))
                with contextlib.suppress(Killed):
                    sender.send()
                failures += fate.calls >= call
    sender.send(ended=True)
    assert failures > 8
    live_store = held(out)
    shutil.copy(tracking.store(laid_out), tracking.store(out))
    send_all(tracked.search, tracked.journal.path)
    assert held(out) == live_store


def begun(journal, name, began):
    config = record(name).config
    return {"trial": name, "begun": {"stage": "explore", "arms": [], "config": config, "began": began}}


def through(name, number):
    return {"trial": name, "set_up_seconds": 0.1, "epoch": epoch(number, 0.3 + number / 10).as_dict()}


def test_a_running_trial_shows_its_epochs_and_its_record_completes_the_same_run(out):
    tracked = begin(out)
    journal = tracked.journal
    journal.decide(BEGUN, **BEGIN)
    sender = Sender(tracked.search, Journal.followed(journal.path))
    trial = live(journal, "trial-000", epochs=tuple(epoch(n, 0.3 + n / 10) for n in range(3)))
    sender.hear(begun(journal, "trial-000", trial.began))
    sender.hear(through("trial-000", 0))
    sender.hear(through("trial-000", 1))
    sender.send()
    times, tags, _, before, *_ = held(out)["trial-000"]
    assert (times[0], times[2], "status" in tags) == ("RUNNING", None, False)
    assert [step for step, *_ in before["val/accuracy"]] == [0, 1]
    journal.append(trial)
    sender.hear(through("trial-000", 2))  # heard after it was written down
    sender.send()
    times, tags, _, after, *_ = held(out)["trial-000"]
    assert (times[0], tags["status"]) == ("FINISHED", "complete")
    assert after["val/accuracy"][:2] == before["val/accuracy"]
    assert len(after["val/accuracy"]) == 3
    assert not sender.running


def test_of_an_attempt_whose_worker_died_nothing_stays(out):
    tracked = begin(out)
    journal = tracked.journal
    journal.decide(BEGUN, **BEGIN)
    sender = Sender(tracked.search, Journal.followed(journal.path))
    sender.hear(begun(journal, "trial-000", journal.clock()))
    sender.hear(through("trial-000", 0))
    sender.send()
    sender.hear(through("trial-000", 1))
    sender.send()
    trial = live(journal, "trial-000", epochs=(epoch(0, 0.3),))
    sender.hear(begun(journal, "trial-000", trial.began))
    sender.hear(through("trial-000", 0))
    sender.send()
    journal.append(trial)
    sender.send()
    times, _, _, history, *_ = held(out)["trial-000"]
    assert times[1:] == (trial.started_ms, journal.records[0].ended_ms)
    assert [(step, value) for step, _, value in history["val/accuracy"]] == [(0, 0.3)]


def test_the_opening_of_the_test_is_no_run(out):
    tracked = begin(out)
    tracked.journal.decide(BEGUN, **BEGIN)
    sender = Sender(tracked.search, Journal.followed(tracked.journal.path))
    message = begun(tracked.journal, "test", tracked.journal.clock())
    message["begun"]["stage"] = TEST
    sender.hear(message)
    sender.send()
    assert set(held(out)) == {"s"}


def test_a_trial_that_was_running_when_its_search_ended_leaves_no_run(out):
    tracked = begin(out)
    tracked.journal.decide(BEGUN, **BEGIN)
    sender = Sender(tracked.search, Journal.followed(tracked.journal.path))
    sender.hear(begun(tracked.journal, "trial-000", tracked.journal.clock()))
    sender.send()
    assert set(held(out)) == {"s", "trial-000"}
    tracked.journal.decide(INTERRUPTED)
    sender.send(ended=True)
    assert {name: run[0][0] for name, run in held(out).items()} == {"s": "KILLED"}


def test_a_search_that_goes_on_is_the_same_run_again(out):
    tracked = finished(out, INTERRUPTED)
    journal = tracked.journal
    first = send_all(tracked.search, journal.path).run
    journal.decide(BEGUN, **BEGIN)
    sender = Sender(tracked.search, Journal.followed(journal.path))
    sender.send()
    assert sender.run == first
    assert held(out)["s"][0][0] == "RUNNING"
    journal.append(live(journal, "trial-003"))
    journal.decide(DONE, result=RESULT)
    sender.send(ended=True)
    runs = held(out)
    assert runs["s"][0] == ("FINISHED", int(journal.state.first.time * 1000), int(journal.state.end.time * 1000))
    assert runs["s"][1]["status"] == "finished"
    assert "trial-003" in runs


def test_a_run_that_a_slow_server_has_made_twice_is_there_once(out):
    import mlflow

    tracked = finished(out)
    client = mlflow.MlflowClient(tracking.uri(out))
    sent = send_all(tracked.search, tracked.journal.path)
    wanted = held(out)
    experiment = client.get_run(sent.run).info.experiment_id
    client.create_run(experiment, 1, {tracking.PARENT: sent.run, "trial": "trial-000"}, "trial-000")
    client.update_run(sent.run, status="RUNNING")
    send_all(tracked.search, tracked.journal.path)
    assert held(out) == wanted


def test_a_journal_from_before_trials_had_their_beginning_is_sent(out):
    tracked = finished(out)
    path = tracked.journal.path
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "began"}) + "\n" for line in lines))
    assert send_all(tracked.search, path).written == 6
    times = held(out)["trial-000"][0]
    ended = next(line["ended"] for line in lines if line.get("id") == "trial-000")
    assert times[1:] == (int(ended * 1000) - 1000, int(ended * 1000))


def test_what_is_half_written_comes_with_the_next_line(tmp_path):
    whole = Journal(tmp_path / "whole", Clock())
    for name in ("trial-000", "trial-001"):
        whole.append(record(name))
    text, growing = whole.path.read_bytes(), tmp_path / "growing"
    growing.write_bytes(b"")
    followed = Journal.followed(growing)
    for cut in range(0, len(text) + 1, 131):
        growing.write_bytes(text[:cut])
        followed.follow()
        assert len(followed.records) == text[:cut].count(b"\n")
    growing.write_bytes(text)
    followed.follow()
    assert followed.records == whole.records


# The process.


@pytest.mark.parametrize("server", [dead, mute, broken])
def test_a_server_that_takes_nothing_stops_nothing_and_is_told_in_one_line(tmp_path, monkeypatch, server):
    with server() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        tracked = begin(tmp_path)
        with tracked:
            for _ in play(tracked.journal):
                tracked.log_trial(None)
            tracked.close()
        assert tracked.link is None
        (said,) = tracked.callback.said
        assert said.startswith(f"tracking at {address} is away (")
        assert said.endswith("by `idat-tune track s`")
        assert tracked.owed
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        with pytest.raises(TrackingFailed, match="nothing is lost: the same command sends it later"):
            track(tmp_path / "s")


def test_at_the_end_a_fine_store_has_everything_and_the_journal_says_so(out):
    tracked = begin(out)
    with tracked:
        for _ in play(tracked.journal):
            tracked.log_trial(None)
        tracked.close()
    assert tracked.callback.said == []
    again = Journal(tracked.journal.path)
    assert (again.state.whole_at, bool(again.state.parent_run)) == ("embedded", True)
    assert not tracked.owed
    assert len(held(out)) == 6
    assert track(out / "s")["runs"] == 0


def test_track_sends_a_search_that_was_never_tracked_and_then_owes_nothing(out, laid_out):
    finished(out)
    found = track(out / "s")
    assert (found["name"], found["runs"]) == ("s", 6)
    assert track(out / "s")["runs"] == 0
    assert Journal(out / "s" / JOURNAL).state.whole_at == "embedded"
    shutil.copy(tracking.store(laid_out), tracking.store(out))  # lost, and begun by another search
    assert track(out / "s")["runs"] == 6


def test_track_leaves_a_running_search_alone(out):
    tracked = finished(out)
    with locked(tracked.search.folder), pytest.raises(BadInput, match="search 's' is running already"):
        track(out / "s")
    with pytest.raises(BadInput, match="no search at .*; there are s;"):
        track(out / "other")


def test_a_store_that_comes_back_is_told_once_and_gets_everything(out, monkeypatch):
    """The store's file is where it belongs only later."""
    tracked = begin(out)
    heard, told = queue.SimpleQueue(), []
    sender = Sender(tracked.search, Journal.followed(tracked.journal.path))
    monkeypatch.setattr(sending, "lay_out", lambda out: None)
    rounds = iter([False, False, False, True])
    monkeypatch.setattr(sending, "listen", lambda *_: next(rounds))
    steps, failing = play(tracked.journal), iter([True, True, False, False])
    send = sender.send

    def sometimes(ended):
        for _ in range(3):
            next(steps, None)
        if next(failing):
            raise ConnectionError("Connection refused")
        return send(ended)

    monkeypatch.setattr(sender, "send", sometimes)
    serve(sender, heard, lambda **about: told.append(about))
    kinds = [next(iter(about)) for about in told]
    assert kinds == ["ready", "away", "away", "back", "run", "whole", "whole"]
    tracked._take(told)
    first, second = tracked.callback.said
    assert first.endswith(
        "is away (connection refused); the search goes on, and what is owed is sent when it is back, "
        "or by `idat-tune track s`"
    )
    assert second.endswith("is back, and gets what it lacks")
    assert not tracked.owed
    assert len(held(out)) == 6


def test_a_message_that_was_cut_short_is_left_out(out):
    tracked = begin(out)
    sender, heard = Sender(tracked.search, Journal.followed(tracked.journal.path)), queue.SimpleQueue()
    for line in (
        '{"trial": "trial-0',
        "7",
        '{"trial": "unknown", "epoch": {}}',
        json.dumps(begun(None, "a", 1.0)),
        None,
    ):
        heard.put(line)
    assert listen(sender, heard, 10)
    assert set(sender.running) == {"a"}


def runs(pid):
    """Whether a process is there that has not ended; one that nobody has waited for has."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_a_driver_that_was_killed_leaves_no_sender_behind_and_a_run_that_says_so(out):
    code = (
        "import pathlib, sys, time\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_tracked import begin, play\n"
        "tracked = begin(pathlib.Path(sys.argv[1]))\n"
        "tracked.start()\n"
        "steps = play(tracked.journal)\n"
        "next(steps), next(steps)\n"
        "print(tracked.link.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    words = [sys.executable, "-c", code, str(out), str(Path(__file__).parent)]
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    pid = int(driver.stdout.readline())
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    journal = Journal(out / "s" / JOURNAL)
    search = described(out / "s", Manifest(a_plan(out), "hash").content)
    assert runs(pid)
    deadline = time.monotonic() + 60
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(pid)
    assert {name: run[0][0] for name, run in held(out).items()} == {"s": "KILLED", "trial-000": "FINISHED"}
    assert send_all(search, journal.path).written == 0
    assert {name: run[0][0] for name, run in held(out).items()} == {"s": "KILLED", "trial-000": "FINISHED"}


def test_a_sender_that_ends_by_itself_is_told_as_a_store_that_is_away(out, monkeypatch):
    tracked = begin(out)
    with tracked:
        tracked.link.process.kill()
        tracked.link.process.wait()
        for _ in play(tracked.journal):
            tracked._listened = 0
            tracked.log_trial(None)
        tracked.close()
    (said,) = tracked.callback.said
    assert "is away (the process that sends has ended)" in said


def test_a_sender_that_does_not_read_holds_nobody_up(out):
    tracked = begin(out)
    with tracked:
        tracked.link.process.send_signal(signal.SIGSTOP)
        for number in range(5000):  # more than a pipe takes
            tracked.log_epoch("trial-000", 0.1, epoch(number))
        tracked.link.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_the_command_says_what_it_sent(out):
    finished(out)
    said = command("track", "s", "--out", out)
    assert (said.returncode, said.stdout) == (0, "6 runs of search s are sent\n"), said.stderr
    said = command("track", "s", "--out", out)
    assert (said.returncode, said.stdout) == (0, "nothing is owed: all runs of search s are there\n")
    found = json.loads(command("track", "s", "--out", out, "--json").stdout)
    assert (found["name"], found["runs"]) == ("s", 0)
    with dead() as address:
        away = command("track", "s", "--out", out, MLFLOW_TRACKING_URI=address)
    assert (away.returncode, away.stdout) == (1, "")
    assert away.stderr.startswith(f"error: tracking at {address} is away (connection refused)")
    assert len(away.stderr.splitlines()) == 1


def test_a_record_keeps_when_it_began_and_compares_without(tmp_path):
    journal = Journal(tmp_path / "j", Clock())
    one = live(journal, "trial-000")
    journal.append(one)
    again = Journal(tmp_path / "j").records[0]
    assert again == dataclasses.replace(one, began=0.0)
    assert again.began == one.began
    assert list(again.stamps()) == [again.started_ms + 600, again.started_ms + 1100]
