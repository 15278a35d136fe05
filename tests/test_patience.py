"""Trials that make no progress: how long they may be silent, whose worker is ended, and what becomes of them."""

import itertools
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher
from test_searcher import a_plan, begin, no_linear_arm, no_object_store, results_of, run_all  # noqa: F401

from idat_tune.errors import BadInput
from idat_tune.journal import FAILED
from idat_tune.search import patience
from idat_tune.search.patience import FIRST, LEAST, LONGEST, TIMES, Patience, Watch, setting
from idat_tune.worker.pool import Place


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv(patience.SETTING, raising=False)


def waiting(stage="explore", waits=()):
    return SimpleNamespace(waits=list(waits), job=SimpleNamespace(stage=stage))


def journal(*firsts):
    epochs = [SimpleNamespace(seconds=seconds) for seconds in firsts]
    return SimpleNamespace(records=[SimpleNamespace(epochs=[each], set_up_seconds=1.0) for each in epochs])


@pytest.mark.parametrize(
    ("firsts", "live", "students", "limit"),
    [
        ([], waiting(), 0, FIRST),
        ([1, 1], waiting(), 0, FIRST),
        ([1, 1, 1], waiting(), 0, LEAST),
        ([99, 99, 2], waiting(), 0, TIMES * 100),
        ([], waiting(waits=[5]), 0, LEAST),
        ([], waiting(waits=[90]), 0, TIMES * 90),
        ([], waiting(waits=[900, 40, 50, 60]), 0, TIMES * 50),
        ([1, 1, 1], waiting("test"), 9, FIRST),
        ([99, 99, 99], waiting("test"), 9, 9 * TIMES * 100),
    ],
)
def test_a_trial_may_be_silent_for_a_multiple_of_what_others_took(firsts, live, students, limit):
    assert Patience(journal(*firsts)).limit(live, students) == limit


def test_the_user_may_say_how_long(monkeypatch):
    monkeypatch.setenv(patience.SETTING, "7.5")
    assert Patience(journal()).limit(waiting()) == 7.5


@pytest.mark.parametrize("said", ["0", "-3", "soon", "nan"])
def test_what_is_no_time_is_refused(monkeypatch, said):
    monkeypatch.setenv(patience.SETTING, said)
    with pytest.raises(BadInput, match=f"IDAT_TUNE_STALLED_AFTER={said} is no number of seconds"):
        setting()


class Watched:
    """A search whose clock is ours, and whose workers' ends are counted."""

    def __init__(self, tmp_path, monkeypatch):
        self.now, self.ended = 0.0, []
        monkeypatch.setenv(patience.SETTING, "60")
        self.conducting = begin(a_plan(tmp_path))
        self.names = itertools.count()
        self.conducting.pool.place = lambda taken, alone, paces: Place(f"worker {next(self.names)}", alone)
        self.conducting.pool.end = self.ended.append
        self.watch = Watch(self.conducting, self.conducting.pool, clock=lambda: self.now)

    def begin(self, *names):
        self.trials = [SimpleNamespace(trial_id=name, status="RUNNING") for name in names]
        return [self.conducting.suggest(name) for name in names]

    def wait(self, seconds):
        for _ in range(seconds):
            self.now += 1
            self.watch.on_step_begin(0, self.trials)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    return Watched(tmp_path, monkeypatch)


def test_the_worker_of_a_silent_trial_is_ended_once_and_that_of_another_is_not(watched):
    _, other = watched.begin("silent", "other")
    watched.wait(40)
    watched.conducting.on_trial_result("other", results_of(other)[0])
    watched.wait(30)
    assert watched.ended == ["worker 0"]


def test_who_trains_beside_a_slow_one_is_waited_for_as_long_as_that_one_and_the_worker_is_ended_once(watched):
    watched.conducting.pool.place = lambda taken, alone, paces: Place("both", alone)
    quick, slow = watched.begin("quick", "slow")
    limits = {quick["id"]: 30, slow["id"]: 100}
    watched.watch.patience.limit = lambda live, students: limits[live.job.id]
    watched.wait(100)
    assert watched.ended == []
    watched.wait(10)
    assert watched.ended == ["both"]


def test_a_trial_that_waits_for_a_seat_is_no_silent_one(watched):
    watched.begin("waiting")
    watched.trials[0].status = "PENDING"
    watched.wait(100)
    assert watched.ended == []


def test_time_in_which_the_driver_itself_was_held_does_not_count(watched):
    watched.begin("one")
    watched.now += 10_000
    watched.watch.on_step_begin(0, watched.trials)
    assert watched.conducting.live["one"].silent == LONGEST
    assert watched.ended == []


def test_a_trial_that_hangs_twice_has_failed_with_the_reason_and_the_search_goes_on(watched):
    (first,) = watched.begin("one")
    watched.wait(61)
    gone = {"status": "gone", "begun": True, "reason": "killed"}
    watched.conducting.on_trial_complete("one", gone)
    alone = []
    watched.conducting.pool.place = lambda taken, only, paces: alone.append(only) or Place("worker 1", only)
    (second,) = watched.begin("two")
    assert second["id"] == first["id"]
    assert alone == [True]
    watched.wait(61)
    watched.conducting.on_trial_complete("two", gone)
    record = watched.conducting.journal.records[-1]
    assert (record.id, record.status) == (first["id"], FAILED)
    assert record.reason == "its worker made no progress for 61 s"
    assert watched.ended == ["worker 0", "worker 1"]
    run_all(watched.conducting)
    assert watched.conducting.suggest("end") == Searcher.FINISHED
