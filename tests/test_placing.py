"""Where trials go in a cluster: as many workers as there is work for, and slow machines only where that is sooner."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_searcher import a_plan, begin, no_linear_arm, no_object_store, run_all, run_one  # noqa: F401

from idat_tune.journal import EXPLORE
from idat_tune.search.live import Live
from idat_tune.search.placing import Placing
from idat_tune.search.stages import ahead
from idat_tune.worker.pool import Place


def test_what_could_start_now_is_all_that_is_left_to_explore(tmp_path):
    plan = a_plan(tmp_path)
    searching, trials = begin(plan), plan.config.explore.trials
    assert ahead(plan, searching.journal, [], 100) == trials
    assert ahead(plan, searching.journal, [], 3) == 3
    run_all(searching, most=2)
    assert ahead(plan, searching.journal, [], 100) == trials - 2
    running = [Live(job) for job in plan.first_jobs()[2:3]]
    assert ahead(plan, searching.journal, [live.job for live in running], 100) == trials - 3


def test_after_exploring_it_is_what_waits_for_nothing_that_runs(tmp_path):
    plan = a_plan(tmp_path)
    searching = begin(plan)
    run_all(searching)
    assert ahead(plan, searching.journal, [], 100) == 0
    cut = begin(a_plan(tmp_path / "cut"))
    while len(cut.journal.of(EXPLORE)) < plan.config.explore.trials:
        run_one(cut, "t", cut.suggest("t"))
    cut.suggest("first")
    count = ahead(cut.plan, cut.journal, [cut.live["first"].job], 100)
    assert count > 3  # of the confirm stage, and the arms' final runs
    cut.suggest("second")
    assert ahead(cut.plan, cut.journal, [live.job for live in cut.live.values()], 100) == count - 1


class Two:
    """A pool of one worker on a fast machine and one on a slow one."""

    seats = 1

    def __init__(self):
        self.limit, self.asked, self.free = (lambda: 8), [], "slow"

    def place(self, taken, alone, paces):
        return Place(self.free, alone)

    def machine(self, name):
        return name

    def follow(self, trials, taken):
        self.asked.append((trials, len(list(taken))))


@pytest.fixture
def placing(tmp_path):
    """Of a search whose trials took 10 seconds on the machine `fast` and 40 on `slow`."""
    searching = begin(a_plan(tmp_path))
    run_all(searching, most=4)
    records = []
    for number, record in enumerate(searching.journal.records):
        node, took = ("fast", 10.0) if number % 2 else ("slow", 40.0)
        epochs = tuple(replace(epoch, seconds=took / len(record.epochs)) for epoch in record.epochs)
        alike = searching.journal.records[0].config
        records.append(replace(record, node=node, seconds=took, epochs=epochs, config=alike))
    journal = SimpleNamespace(records=records, length=4)
    clock = SimpleNamespace(now=0.0)
    found = Placing(searching.plan, journal, Two(), lambda: clock.now)
    found.left = 0
    found._ahead = lambda running, waiting: found.left
    return found, clock, searching


def running_on(searching, machine):
    job = searching.plan.first_jobs()[0]
    return Live(job, place=Place(machine, False))


def test_the_last_trials_wait_for_a_fast_machine_and_not_for_ever(placing):
    found, clock, searching = placing
    trial, busy = Live(searching.plan.first_jobs()[1]), [running_on(searching, "fast")]
    assert found.find(trial, busy, []) is None  # 40 seconds here, 20 there
    clock.now = 39.0
    assert found.find(trial, busy, []) is None
    clock.now = 41.0
    assert found.find(trial, busy, []) == Place("slow", False)


def test_where_many_trials_are_left_a_slow_machine_takes_its_part(placing):
    found, _, searching = placing
    trial, busy = Live(searching.plan.first_jobs()[1]), [running_on(searching, "fast")]
    found.left = 10
    assert found.find(trial, busy, []) == Place("slow", False)


def test_nobody_waits_where_none_is_busy_or_the_place_is_fast(placing):
    found, _, searching = placing
    trial = Live(searching.plan.first_jobs()[1])
    assert found.find(trial, [], []) == Place("slow", False)
    found.pool.free = "fast"
    assert found.find(trial, [running_on(searching, "fast")], []) == Place("fast", False)


def test_as_many_workers_are_asked_for_as_run_wait_and_could_start(placing):
    found, _, searching = placing
    found.left = 5
    found.follow([running_on(searching, "fast")], [Live(searching.plan.first_jobs()[1])])
    assert found.pool.asked == [(7, 1)]
    found.pool.limit = None
    found.follow([], [])
    assert len(found.pool.asked) == 1
