"""What ends exploring: trials, hours, GPU-hours, patience, a finished grid; time is made up here."""

from dataclasses import replace

import pytest
from test_journal import epoch
from test_searcher import Everywhere, SilentTracker, a_plan, asking, no_linear_arm, opened, results_of, run_all, run_one  # noqa: F401

from idat_tune import space as spaces
from idat_tune.errors import BadInput
from idat_tune.journal import COMPLETE, EXPLORE, FAILED, STOPPED, Journal, TrialRecord
from idat_tune.search import Callback, finish
from idat_tune.search.budget import WHY, Budget, longest_without_gain
from idat_tune.search.cluster import Session
from idat_tune.search.config import SearchConfig
from idat_tune.search.searcher import StagedSearcher


class Clock:
    """Stands still unless it is moved on."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Heard(Callback):
    def __init__(self):
        self.limits = []

    def on_explore_end(self, limit):
        self.limits.append(limit)


def begin(plan, clock, gpus=0.0):
    journal, manifest = opened(plan, gpus, clock)
    budget = Budget(plan, journal, gpus, clock)
    return StagedSearcher(plan, journal, manifest, SilentTracker(), Heard(), Everywhere(), budget)


def explore(conducting, clock, seconds, trials, at_once=1):
    """Let trials run one after the other, or as many at once as said, each for so many seconds."""
    for first in range(0, trials, at_once):
        live = [(f"{first}-{number}", conducting.suggest(f"{first}-{number}")) for number in range(at_once)]
        clock.now += seconds
        for tune_id, payload in live:
            run_one(conducting, tune_id, payload)


def explored(conducting):
    return len(conducting.journal.of(EXPLORE))


def test_hours_end_exploring_but_not_the_search(tmp_path):
    clock = Clock()
    conducting = begin(a_plan(tmp_path, trials=100, hours=1), clock)
    explore(conducting, clock, 900, 4)
    run_all(conducting)
    assert conducting.finished
    assert explored(conducting) == 4
    assert conducting.journal.state.openings
    assert conducting.journal.state.ended_by == "hours"


def test_the_arms_run_whatever_the_budget(tmp_path):
    clock = Clock()
    conducting = begin(a_plan(tmp_path, trials=100, hours=1e-9), clock)
    clock.now += 1
    run_all(conducting)
    assert {arm for record in conducting.journal.of(EXPLORE) for arm in record.arms} == {
        "default",
        "alone",
        "no_distill",
    }
    assert explored(conducting) == 3


def test_gpu_hours_count_every_trial_that_runs_at_the_same_time(tmp_path):
    clock = Clock()
    conducting = begin(a_plan(tmp_path, trials=100, gpu_hours=1), clock, gpus=0.5)
    explore(conducting, clock, 900, 8, at_once=4)
    assert conducting.budget.gpu_seconds == 2 * 4 * 900 * 0.5
    run_all(conducting)
    assert explored(conducting) == 8
    assert conducting.journal.state.ended_by == "gpu-hours"


def test_trials_that_run_count_before_they_end(tmp_path):
    clock = Clock()
    conducting = begin(a_plan(tmp_path, trials=100, gpu_hours=1), clock, gpus=1.0)
    explore(conducting, clock, 100, 3)
    running = conducting.suggest("running")
    clock.now += 3300
    assert conducting._may_end(exhausted=False)
    run_one(conducting, "running", running)
    assert explored(conducting) == 4


def test_what_earlier_sessions_spent_is_counted_also_when_the_driver_was_killed(tmp_path):
    plan, clock = a_plan(tmp_path, trials=100), Clock()
    first = begin(asking(plan, hours=1), clock, gpus=2.0)
    explore(first, clock, 600, 3)
    payload = first.suggest("cut off")
    clock.now += 300
    first.on_trial_result("cut off", results_of(payload)[0])
    clock.now += 10**6  # between the sessions
    second = begin(asking(plan, hours=1), clock, gpus=2.0)
    assert second.budget.seconds == 3 * 600 + 300
    assert second.budget.gpu_seconds == 2 * (3 * 600 + 300)
    explore(second, clock, 1500, 1)
    run_all(second)
    assert explored(second) == 4
    assert second.journal.state.ended_by == "hours"


def test_time_after_exploring_is_not_exploring(tmp_path):
    clock = Clock()
    conducting = begin(a_plan(tmp_path, trials=3), clock)
    explore(conducting, clock, 10, 3)
    conducting.suggest("final")
    clock.now += 500
    conducting.budget.note(0)
    assert conducting.budget.seconds == 30
    assert Journal(conducting.journal.path).state.seconds == 30


def record(accuracy, status=COMPLETE, arms=(), images=200):
    measured = replace(epoch(0, accuracy, 0.5), val_accuracy=accuracy)
    return TrialRecord(str(accuracy), EXPLORE, arms, {}, status, epochs=(measured,), val_images=images)


@pytest.mark.parametrize(
    ("accuracies", "longest"),
    [
        ([], 0),
        ([0.5, 0.5, 0.5], 2),
        ([0.5, 0.53, 0.53, 0.53], 3),  # one standard error of 0.5 on 200 images is 0.035
        ([0.5, 0.54, 0.54], 1),
        ([0.5, 0.52, 0.54, 0.54], 1),  # small steps add up
        ([0.5, 0.4, 0.4, 0.6, 0.4], 2),
        ([1.0, 1.0], 1),
        ([0.0, 0.005, 0.005], 1),
    ],
)
def test_patience_counts_trials_that_brought_nothing_beyond_the_noise(accuracies, longest):
    assert longest_without_gain([record(accuracy) for accuracy in accuracies]) == longest


def test_with_more_images_a_smaller_step_is_a_gain():
    assert longest_without_gain([record(0.5, images=20_000), record(0.51, images=20_000)]) == 0


def test_arms_set_the_mark_but_are_not_counted_and_stopped_or_failed_trials_bring_nothing():
    arms = [record(0.6, arms=("default",)), record(0.6, arms=("alone",))]
    assert longest_without_gain(arms) == 0
    poor = [record(0.9, STOPPED), record(0.9, FAILED), record(0.61)]
    assert longest_without_gain([*arms, *poor]) == 3


def test_patience_ends_exploring_and_still_does_after_a_restart(tmp_path):
    flat = spaces.parse({"params": {"distill.temperature": {"uniform": [1, 9]}}, "fixed": {"epochs": 2}})
    plan, clock = a_plan(tmp_path, space=flat, trials=100), Clock()
    first = begin(asking(plan, patience=5), clock)
    run_all(first, most=3 + 5)
    assert explored(first) == 8
    second = begin(asking(plan, patience=5), clock)
    run_all(second)
    assert explored(second) == 8
    assert second.journal.state.ended_by == "patience"
    assert second.callback.limits == ["patience"]


@pytest.mark.parametrize("limit", ["trials", "grid"])
def test_what_ended_exploring_is_told_once_and_kept_in_journal_and_result(tmp_path, limit):
    space = spaces.parse({"params": {"adapter.hidden_dim": {"choice": [4, 8]}}, "fixed": {"epochs": 2}})
    plan = a_plan(tmp_path, space=space, sampler="grid", trials=4 if limit == "trials" else 9)
    conducting = begin(plan, Clock())
    run_all(conducting)
    result = finish.result(plan, conducting.journal, "uri", 1.0)
    assert conducting.callback.limits == [limit] == [result["ended_by"]] == [conducting.journal.state.ended_by]
    assert WHY[limit]


def test_a_search_that_ended_by_its_trials_may_be_given_more_until_the_winner_stands(tmp_path):
    run_all(begin(a_plan(tmp_path, trials=4), Clock()), most=4)
    clock = Clock()
    conducting = begin(a_plan(tmp_path, trials=50, hours=1), clock)
    explore(conducting, clock, 1900, 2)
    run_all(conducting)
    assert explored(conducting) == 6
    assert conducting.journal.state.ended_by == "hours"


def test_gpu_hours_are_refused_where_trials_take_no_gpu(tmp_path):
    session = Session(SearchConfig.of("digits", max_concurrent=1, gpu_hours=1))
    try:
        with pytest.raises(BadInput, match="--gpu-hours cannot be counted: trials take no GPU here; use --hours"):
            session.start(a_plan(tmp_path))
    finally:
        session.close()
