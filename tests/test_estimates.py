"""What is foreseen of a search: epochs, hours, time left."""

from dataclasses import replace

import pytest
from test_journal import epoch
from test_searcher import a_plan, asking, begin, no_linear_arm, run_all  # noqa: F401

from idat_tune.config import RunConfig
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FINAL, TEST, TrialRecord
from idat_tune.metrics import Speed
from idat_tune.search.estimates import Pace, Standing, cost_key, estimated, measured, sample_of
from idat_tune.search.stages import winner

SPEED = Speed(train=1 / 800, val=0.0, beside=0.0)  # an epoch takes a second


def pace(plan, speed=SPEED):
    return Pace({cost_key(plan.config_of({}).flat()): speed}, sample_of(plan))


def ahead(plan, workers=1, standing=None, gpus=0.0):
    return estimated(plan, workers, pace(plan), gpus, standing or Standing())


def test_without_stopping_every_trial_is_foreseen_to_run_to_its_end(tmp_path):
    plan = a_plan(tmp_path, fixed={"epochs": 10}, trials=20, stopping="none", folds=0)
    found = ahead(plan)
    assert found.stages[EXPLORE].epochs == 200
    assert found.stages[EXPLORE].busy == pytest.approx(200)
    assert 3 * 2 * 10 < found.stages[FINAL].epochs <= 4 * 2 * 10  # the winner's twin, if it has a teacher
    assert found.stages[CONFIRM].epochs == 0


@pytest.mark.parametrize("stopping", ["halving", "median"])
def test_stopping_is_played_by_the_rule_itself(tmp_path, stopping):
    plan = a_plan(tmp_path, fixed={"epochs": 10}, trials=40, stopping=stopping, sampler="random")
    arms = 3 * 10
    found = ahead(plan).stages[EXPLORE].epochs
    assert arms + 37 * 2 < found < arms + 37 * 6


def test_halving_leaves_about_what_its_rungs_say(tmp_path):
    plan = a_plan(tmp_path, fixed={"epochs": 100}, trials=1003)
    # Rungs at 20 and 60: all run 20, a third 40 more, a ninth another 40, and at first some more than that.
    expected = 300 + 1000 * (20 + 40 / 3 + 40 / 9)
    assert ahead(plan).stages[EXPLORE].epochs == pytest.approx(expected, rel=0.08)


def test_twice_the_workers_take_half_the_time_but_never_less_than_one_run(tmp_path):
    plan = a_plan(tmp_path, fixed={"epochs": 10}, trials=20, stopping="none")
    one, two, many = (ahead(plan, workers).seconds for workers in (1, 2, 1000))
    assert two == pytest.approx(one / 2, rel=0.05)
    assert many >= 3 * 10


def test_hours_end_exploring_and_nothing_else(tmp_path):
    plan = a_plan(tmp_path, fixed={"epochs": 10}, trials=200, stopping="none")
    whole, cut = ahead(plan, 2), ahead(asking(plan, hours=100 / 3600), 2)
    assert cut.stages[EXPLORE].wall(2) == pytest.approx(100)
    assert cut.stages[FINAL] == whole.stages[FINAL]
    gpu = ahead(asking(plan, gpu_hours=100 / 3600), 2, gpus=0.5)
    assert gpu.stages[EXPLORE].busy == pytest.approx(200)


def test_what_was_spent_before_a_restart_shortens_the_hours(tmp_path):
    plan = a_plan(tmp_path, fixed={"epochs": 10}, trials=200, stopping="none")
    cut = ahead(asking(plan, hours=100 / 3600), 2, Standing(spent=40.0))
    assert cut.stages[EXPLORE].wall(2) == pytest.approx(60)


def test_the_time_left_falls_as_the_search_goes_on_and_is_none_at_its_end(tmp_path):
    plan = a_plan(tmp_path, trials=12, sampler="random")
    conducting = begin(plan)
    left = [ahead(plan).seconds]
    while not conducting.finished:
        run_all(conducting, most=1)
        chosen = winner(conducting.plan, conducting.journal)
        config = chosen and RunConfig.from_flat(chosen.config)
        standing = Standing(conducting.journal.records, (), conducting.journal.state.ended_by is not None, config)
        left.append(ahead(plan, standing=standing).seconds)
    assert left[-1] == 0
    assert max(left) < 1.1 * left[0]
    assert left[len(left) // 2] < 0.8 * left[0]


def test_trials_that_run_count_with_what_is_left_of_them(tmp_path):
    plan = a_plan(tmp_path, fixed={"epochs": 10}, trials=3, folds=0, seeds=1)
    jobs = plan.first_jobs()
    begun = Standing(running=[(jobs[0], 7)])
    whole, less = ahead(plan), ahead(plan, standing=begun)
    assert whole.stages[EXPLORE].epochs - less.stages[EXPLORE].epochs == 7


def a_record(config, seconds, images_per_second, stage=EXPLORE):
    epochs = tuple(
        replace(epoch(number, 0.5, 0.5), seconds=seconds, images_per_second=images_per_second) for number in range(2)
    )
    return TrialRecord("t", stage, (), config.flat(), COMPLETE, epochs=epochs, set_up_seconds=0.25)


def test_the_pace_of_a_search_is_what_its_trials_showed(tmp_path):
    plan = a_plan(tmp_path)
    assert measured(plan, []) is None
    slow = plan.config_of({})
    fast = slow.without_teacher()
    found = measured(plan, [a_record(slow, 4.0, 400), a_record(fast, 2.0, 800), a_record(slow, 9.0, 1, TEST)])
    assert found.of(cost_key(slow.flat())) == Speed(1 / 400, 2.0 / 200, 0.25)
    assert found.of(cost_key(fast.flat())) == Speed(1 / 800, 1.0 / 200, 0.25)
    assert found.of(cost_key(slow.updated({"adapter.hidden_dim": 32}).flat())) == Speed.mean(
        [found.of(cost_key(slow.flat())), found.of(cost_key(fast.flat()))]
    )


def test_the_first_epoch_in_which_caches_are_filled_counts_once():
    epochs = [replace(epoch(n, 0.5, 0.5), seconds=s, images_per_second=800) for n, s in enumerate((3.0, 1.5, 1.5))]
    speed = Speed.shown(epochs, 800, 200, 1.0)
    assert speed.beside == 1.0 + 1.5
    assert speed.run(3, 800, 200) == pytest.approx(1.0 + 3.0 + 1.5 + 1.5)


def test_what_a_worker_computes_once_is_not_foreseen_for_every_trial(tmp_path):
    plan = a_plan(tmp_path)
    run_all(conducting := begin(plan), most=1)
    (first,) = conducting.journal.records
    own = cost_key(first.config)

    def beside(*trials):
        records = [replace(first, id=f"t{n}", worker=worker, set_up_seconds=s) for n, (worker, s) in enumerate(trials)]
        return measured(plan, records).known[own].beside

    assert beside((1, 26.0)) == 26.0
    assert beside((1, 26.0), (2, 24.0)) == 25.0
    assert beside((1, 26.0), (2, 24.0), (1, 0.2), (2, 0.4)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"optim.lr": 1e-4, "seed": 3, "pace.sigma": 2.0, "pace.mode": "fast"}, True),
        ({"adapter.kind": "lora", "adapter.targets": "all"}, False),
        ({"gist.token": True}, False),
        ({"pace.weight": 1.0}, False),
        ({"pace.weight": 1.0, "pace.mode": "fast"}, False),
    ],
)
def test_what_changes_the_cost_of_a_trial_is_told_apart(changes, same):
    config = RunConfig.for_task("digits")
    keys = [cost_key(of.flat()) for of in (config, config.updated(changes))]
    assert (keys[0] == keys[1]) is same
    assert cost_key(config.updated({"pace.weight": 1.0}).flat()) == cost_key(
        config.updated({"pace.weight": 2.0}).flat()
    )


def test_records_of_before_these_settings_have_a_cost_too():
    flat = {
        key: value for key, value in RunConfig.for_task("digits").flat().items() if "." not in key or "adapter" in key
    }
    del flat["adapter.targets"]
    assert cost_key(flat) == cost_key(RunConfig.for_task("digits").flat())
