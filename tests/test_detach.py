"""Searches that outlive their terminal: begun, shown, stopped and gone on with from others."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import command
from test_searcher import a_plan, begin, no_linear_arm, no_object_store, run_all  # noqa: F401

from idat_tune.cli import away
from idat_tune.errors import BadInput, IdatError, Interrupted
from idat_tune.journal.state import BROKE, DONE, INTERRUPTED
from idat_tune.search import attaching
from idat_tune.search.attaching import attach
from idat_tune.search.callback import Callback
from idat_tune.search.holding import Holder, holder

LONG = ["search", "--task", "digits", "--trials", "5", "--epochs", "30", "--folds", "2", "--seeds", "1", "--name", "n"]


class Told(Callback):
    def __init__(self):
        self.events = []

    def on_search_start(self, plan, workers, earlier, budget):
        self.events.append(("start", len(earlier)))

    def on_trial_end(self, record):
        self.events.append(("end", record.id))

    def on_explore_end(self, limit):
        self.events.append(("explored", limit))

    def on_winner(self, winner):
        self.events.append(("winner", winner.id))

    def on_test_open(self, students, opening):
        self.events.append(("test", opening))


@pytest.fixture
def held(monkeypatch):
    """A search that is driven until a test says that it is not."""
    moments = []
    monkeypatch.setattr(attaching, "holder", lambda folder: bool(moments) and moments.pop(0)())
    return moments


def test_a_search_is_followed_as_its_journal_grows(tmp_path, held):
    plan, told = a_plan(tmp_path, name="s"), Told()
    searching = begin(plan)
    run_all(searching, most=2)
    held += [lambda: run_all(searching) or True]
    with pytest.raises(IdatError, match="what drove search 's' died; what was finished is kept"):
        attach(plan, [told], every=0)
    assert told.events[0] == ("start", 2)
    ended = [about for event, about in told.events if event == "end"]
    assert ended == [record.id for record in searching.journal.records][2:]
    assert [event for event, _ in told.events if event not in ("start", "end")] == ["explored", "winner", "test"]


@pytest.mark.parametrize(
    ("kind", "about", "error", "sentence"),
    [
        (INTERRUPTED, {}, Interrupted, "search 's' was told to stop"),
        (BROKE, {"reason": "no disk", "result": None}, IdatError, "search 's' failed: no disk"),
    ],
)
def test_the_end_of_a_followed_search_is_that_of_the_command(tmp_path, held, kind, about, error, sentence):
    plan = a_plan(tmp_path, name="s")
    searching = begin(plan)
    held += [lambda: searching.journal.decide(kind, **about) or True]
    with pytest.raises(error, match=sentence):
        attach(plan, [], every=0)


def test_what_a_followed_search_gave_is_returned(tmp_path, held):
    plan = a_plan(tmp_path, name="s")
    searching = begin(plan)
    held += [lambda: searching.journal.decide(DONE, result={"verdict": "good"}) or True]
    found = attach(plan, [], every=0)
    assert (found["verdict"], found["name"], found["finished"]) == ("good", "s", True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["search", "--task", "digits", "--detach", "--dry-run"], "--detach begins a search and --dry-run begins none"),
        (["search", "--name", "none"], "search 'none' is not running in runs; give --task to begin it"),
        (["search", "--name", "../x"], "--name cannot be '../x'"),
        (["search", "--task", "digits", "--trials", "-1", "--detach"], "--trials cannot be -1"),
        (["stop", "none"], "no search at runs/none"),
        (["search", "--task", "digits", "--detach", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray"),
    ],
)
def test_what_cannot_be_is_said_at_once_and_nothing_is_begun(tmp_path, words, sentence):
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert holder(tmp_path / "runs" / "digits-1") is None


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "search 's' is not running: it is died"),
        (Holder("elsewhere", 7, "1"), "search 's' runs on elsewhere, as process 7; give this command there"),
        (Holder(os.uname().nodename, os.getpid(), "1"), "that this machine does not show"),
    ],
)
def test_nobody_is_stopped_who_may_be_somebody_else(tmp_path, monkeypatch, found, sentence):
    begin(a_plan(tmp_path, name="s"))
    monkeypatch.setattr("idat_tune.search.holding.holder", lambda folder: found)
    monkeypatch.setattr(away.os, "kill", lambda *_: pytest.fail("somebody was told to stop"))
    with pytest.raises(BadInput, match=sentence):
        away.stop("s", tmp_path)


def began(tmp_path, *more):
    """A detached search, begun from a process group of its own that then gets the signal of a cut line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "idat_tune.cli", *LONG, "--detach", "--json", *more],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    said = json.loads(process.communicate(timeout=300)[0])
    assert process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGHUP)  # nobody of it is left
    return said


@pytest.mark.slow
def test_a_detached_search_is_shown_by_its_name_stopped_and_gone_on_with(tmp_path):
    said = began(tmp_path)
    assert holder(tmp_path / "runs" / "n").pid == said["pid"]
    journal = tmp_path / "runs" / "n" / "journal.jsonl"
    view = subprocess.Popen(
        [sys.executable, "-m", "idat_tune.cli", "search", "--name", "n"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # The tests themselves may run in the background of a shell, where SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (journal.exists() and "arm-alone" in journal.read_text()):
        assert holder(tmp_path / "runs" / "n"), (tmp_path / "runs" / "n" / "output.txt").read_text()
        time.sleep(0.1)
    time.sleep(1)
    view.send_signal(signal.SIGINT)
    errors = view.communicate(timeout=240)[1]
    assert view.returncode == 130
    assert "search 'n' goes on without this view; `" in errors
    assert holder(tmp_path / "runs" / "n").pid == said["pid"]
    stopped = command("stop", "n", cwd=tmp_path)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert holder(tmp_path / "runs" / "n") is None
    assert "was interrupted; what was finished is kept" in (tmp_path / "runs" / "n" / "output.txt").read_text()
    (found,) = json.loads(command("status", "--json", cwd=tmp_path).stdout)
    assert found["state"] == "interrupted"
    began(tmp_path)
    shown = command(*LONG, "--json", cwd=tmp_path)  # the command that began it shows it too
    assert shown.returncode == 0, shown.stderr
    assert "following it" in shown.stderr
    assert json.loads(shown.stdout)["finished"]
    assert "test " in shown.stderr
    (found,) = json.loads(command("status", "--json", cwd=tmp_path).stdout)
    assert (found["state"], found["trials"]["ended"]) == ("finished", 5)
    other = command(*LONG, "--seed", "5", "--detach", cwd=tmp_path)
    assert other.returncode == 2
    assert "was begun with another seed" in other.stderr
