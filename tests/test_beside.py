"""Searches of several tasks side by side: all of each, the first winners tried early on later ones, one way to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest
from conftest import command
from test_searcher import a_plan

from idat_tune.errors import BadInput, IdatError
from idat_tune.interrupts import interruptible
from idat_tune.journal import Journal
from idat_tune.journal.state import INTERRUPTED
from idat_tune.search import beside
from idat_tune.search.beside import TELL, Relay
from idat_tune.search.callback import Callback
from idat_tune.search.config import ResourcesConfig
from idat_tune.search.room import Machine, room

SMALL = ["--trials", "4", "--epochs", "1", "--no-confirm", "--seeds", "1", "--parallel-tasks", "2", "--name", "n"]


class Sent(list):
    def send(self, message):
        self.append(message)


def test_a_relay_passes_every_event_on():
    sent = Sent()
    relay = Relay(sent)
    events = [name for name in vars(Callback) if name.startswith("on_")]
    for event in events:
        if event not in ("on_search_open", "on_ray_lost"):
            getattr(relay, event)("about it")
            assert sent[-1] == (TELL, event, ("about it",))


def test_who_tells_nobody_any_more_ends_as_by_a_signal():
    ours, theirs = beside.SPAWN.Pipe(duplex=False)
    ours.close()
    with interruptible() as interrupts, pytest.raises(KeyboardInterrupt):
        Relay(theirs).on_remark("is anybody there?")
    assert interrupts.asked


@pytest.mark.parametrize(
    ("sharers", "options", "processes"), [(1, {}, 5), (2, {}, 3), (9, {}, 1), (2, {"max_concurrent": 4}, 2)]
)
def test_each_gets_its_part_of_the_machines(sharers, options, processes):
    found = room([Machine(3), Machine(2)], 0.0, ResourcesConfig(**options), True, sharers)
    assert found.processes == processes


@pytest.mark.parametrize("count", [0, -1, 65])
def test_so_many_at_once_are_refused(count):
    with pytest.raises(BadInput, match=f"--parallel-tasks must be from 1 to 64, not {count}"):
        ResourcesConfig(parallel_tasks=count)


class Scripted:
    """Drives nothing: has ended as soon as it has begun, with what a test says."""

    begun: ClassVar[list] = []

    def __init__(self, plan, shared, callbacks, known, running):
        self.plan, self.callback = plan, Callback()
        self.messages, theirs = beside.SPAWN.Pipe(duplex=False)
        theirs.close()
        self.result, self.failure = self.outcome(plan.task.name)
        self.begun.append((plan.task.name, [task.name for task in known], running.value))

    def start(self):
        pass

    @staticmethod
    def outcome(task):
        failure = IdatError(f"no luck with {task}") if task == "sprites_loc" else None
        return {"winner": {"config": {"from": task}}, "task": task}, failure

    def hear(self):
        return False


def test_what_won_is_tried_early_on_those_that_begin_later_and_a_failure_stops_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "Driven", Scripted)
    monkeypatch.setattr(beside, "checked", lambda plans, session: None)
    session = SimpleNamespace(start=lambda plan: None, close=lambda: None, capacity=lambda room: 9, remarks=["said"])
    monkeypatch.setattr(beside, "Session", lambda shared: session)
    context = SimpleNamespace(gcs_address="127.0.0.1:6379")
    monkeypatch.setattr(beside, "ray", SimpleNamespace(get_runtime_context=lambda: context))
    plans = [a_plan(tmp_path, task=task, name=task) for task in ("digits", "sprites_loc", "sprites_ori", "digits")]
    shared = plans[0].config.updated({"resources.parallel_tasks": 1})
    found = beside.drive_beside(plans, shared, lambda plan: [])
    assert [next(found)["task"] for _ in range(3)] == ["digits", "sprites_ori", "digits"]
    with pytest.raises(IdatError, match="no luck with sprites_loc"):
        next(found)
    assert Scripted.begun == [
        ("digits", [], 1),
        ("sprites_loc", ["digits"], 1),
        ("sprites_ori", ["digits"], 1),
        ("digits", ["sprites_ori", "digits"], 1),
    ]


@pytest.mark.slow
def test_three_tasks_two_at_once(tmp_path):
    done = command("search", "--task", "embedded", *SMALL, "--json", cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [result["task"] for result in results] == ["digits", "sprites_loc", "sprites_ori"]
    assert all(result["finished"] and result["trials"]["complete"] == 4 for result in results)
    lines = [line for line in done.stderr.splitlines() if " search n-" in line]
    assert [line.partition(":")[0] for line in lines][-1] == "sprites_ori"
    assert len(lines) == 3
    assert (tmp_path / "runs" / "n.parquet").exists()
    assert (tmp_path / "runs" / "n" / "report.html").read_text().count('<a href="../n-') == 3


@pytest.mark.slow
def test_one_signal_stops_all_of_them_and_the_same_command_goes_on(tmp_path):
    words = ["search", "--task", "digits", "--task", "sprites_loc", *SMALL, "--json"]
    words[words.index("--epochs") + 1] = "12"
    running = subprocess.Popen(
        [sys.executable, "-m", "idat_tune.cli", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journals = [tmp_path / "runs" / f"n-{task}" / "journal.jsonl" for task in ("digits", "sprites_loc")]
    deadline = time.monotonic() + 300
    while not all(journal.exists() and "started" in journal.read_text() for journal in journals):
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGTERM)  # which the others hear of from it alone
    _, errors = running.communicate(timeout=240)
    assert running.returncode == 130, errors
    assert "the searches of 'n' were interrupted; what was finished is kept. Go on: " in errors
    assert all(f'"{INTERRUPTED}"' in journal.read_text() for journal in journals)
    again = command(*words, cwd=tmp_path, timeout=500)
    assert again.returncode == 0, again.stderr
    assert all(Journal(journal).state.result for journal in journals)
