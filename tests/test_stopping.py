"""Which trials the stopping rules end, and what Optuna hears of those."""

import random
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket
from test_searcher import a_plan, begin, no_linear_arm, results_of, run_all  # noqa: F401

from idat_tune.journal import COMPLETE, FINAL, STOPPED
from idat_tune.search.config import HALVING, MEDIAN, NONE, RULES
from idat_tune.search.stopping import ETA, Halving, grace, rule


@pytest.mark.parametrize(("grace_period", "eta", "epochs"), [(2, 3, 10), (20, 3, 100), (1, 2, 27), (3, 4, 200)])
def test_halving_decides_as_ray_tunes_own_does(grace_period, eta, epochs):
    ours, theirs = Halving(epochs, grace_period, eta), _Bracket(grace_period, epochs, eta, 0)
    draw = random.Random(0)
    for number in range(60):
        trial = SimpleNamespace(trial_id=str(number))
        for epoch in range(1, epochs):
            score = draw.random()
            stops = ours.stops(trial.trial_id, epoch, score)
            assert stops == (theirs.on_result(trial, epoch, score) == TrialScheduler.STOP)
            if stops:
                break


def test_about_one_in_eta_goes_on_at_a_rung():
    halving, draw = Halving(10, 2), random.Random(1)
    went_on = sum(not halving.stops(str(number), 2, draw.random()) for number in range(600))
    assert went_on / 600 == pytest.approx(1 / ETA, abs=0.05)


@pytest.mark.parametrize(
    ("epochs", "warmup", "expected"), [(100, 10, 20), (10, 1, 2), (10, 5, 6), (1, 0, 1), (3, 0, 1)]
)
def test_nothing_ends_inside_the_warm_up_or_before_a_fifth(epochs, warmup, expected):
    assert grace(epochs, warmup) == expected


def test_the_median_rule_ends_what_never_reached_what_others_showed_on_average():
    median = rule(MEDIAN, 10, 1)
    for trial, level in (("a", 0.5), ("b", 0.6), ("c", 0.7)):
        assert not any(median.stops(trial, epoch, level) for epoch in range(1, 11))
    assert not median.stops("poor", 1, 0.1)  # in its grace period
    assert median.stops("poor", 2, 0.59)
    assert not median.stops("fair", 2, 0.61)
    assert not median.stops("fair", 3, 0.2)  # its best counts


def test_the_median_rule_waits_for_three_others():
    median = rule(MEDIAN, 10, 1)
    assert not any(median.stops(trial, 2, level) for trial, level in (("a", 0.9), ("b", 0.8), ("c", 0.1)))
    assert median.stops("d", 2, 0.1)


def play(conducting, tune_id, payload):
    """Hand a trial's results to rule and searcher in the order of Ray Tune's own controller."""
    trial = SimpleNamespace(trial_id=tune_id, config=payload)
    *before, last = results_of(payload)
    for result in before:
        if conducting.scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            conducting.on_trial_complete(tune_id, result)
            return
        conducting.on_trial_result(tune_id, result)
    conducting.on_trial_complete(tune_id, last)


@pytest.mark.parametrize("stopping", RULES)
def test_stopped_trials_reach_optuna_as_pruned_with_what_they_showed_and_arms_never_stop(tmp_path, stopping):
    conducting = begin(a_plan(tmp_path, fixed={"epochs": 10}, trials=20, stopping=stopping, sampler="random"))
    number = 0
    while not conducting.finished:
        payload = conducting.suggest(f"t{number}")
        if not conducting.finished:
            play(conducting, f"t{number}", payload)
            number += 1
    stopped = [record for record in conducting.journal.records if record.status == STOPPED]
    assert bool(stopped) == (stopping != NONE)
    assert not any(record.arms for record in stopped)
    assert all(record.status == COMPLETE for record in conducting.journal.of(FINAL))
    pruned = [trial for trial in conducting.study.trials if trial.state == TrialState.PRUNED]
    assert [trial.params["optim.lr"] for trial in pruned] == [record.config["optim.lr"] for record in stopped]
    for trial, record in zip(pruned, stopped, strict=True):
        assert len(trial.intermediate_values) == len(record.epochs) >= 2


@pytest.mark.parametrize("stopping", [HALVING, MEDIAN])
def test_after_a_restart_the_rule_knows_the_epochs_of_before(tmp_path, stopping):
    plan = a_plan(tmp_path, fixed={"epochs": 10}, trials=8, stopping=stopping)
    first = begin(plan)
    run_all(first, most=7)
    known, again = first.scheduler.rule, begin(plan).scheduler.rule
    for record in first.journal.records:
        for epoch in record.epochs:
            known.stops(record.id, epoch.epoch + 1, record.score)
    assert vars(known) == vars(again)
