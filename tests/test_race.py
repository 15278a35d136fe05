"""The race of contenders and the choice of a winner: pure arithmetic on accuracies."""

import math
import random
import statistics

import pytest
from scipy import stats

from idat_tune.search.race import Contender, Race, paired
from idat_tune.search.verdict import Comparison

FIVE = range(5)


def race(accuracies: dict[str, list[float]], params: dict[str, int] | None = None, folds: int = 5) -> Race:
    """A race with given results, the first contender being the default."""
    contenders = [Contender(name, (params or {}).get(name, 1000)) for name in accuracies]
    running = Race(contenders, folds, shared=0.25, default=next(iter(accuracies)))
    for name, values in accuracies.items():
        for fold, accuracy in enumerate(values):
            running.add(name, fold, accuracy, loss=1 - accuracy)
    return running


def test_an_interval_of_independent_pairs_is_that_of_the_t_test():
    ours, theirs = {0: 0.52, 1: 0.58, 2: 0.55}, {0: 0.50, 1: 0.53, 2: 0.54}
    found = paired(ours, theirs)
    known = stats.ttest_rel(list(ours.values()), list(theirs.values())).confidence_interval(0.95)
    assert found is not None
    assert found.interval == pytest.approx((known.low, known.high))
    assert found.pairs == 3


def test_splits_that_share_images_make_the_interval_wider():
    ours, theirs = {0: 0.52, 1: 0.58, 2: 0.55}, {0: 0.50, 1: 0.53, 2: 0.54}
    apart, sharing = paired(ours, theirs), paired(ours, theirs, shared=0.25)
    assert apart is not None
    assert sharing is not None
    assert sharing.standard_error == pytest.approx(apart.standard_error * math.sqrt((1 / 3 + 0.25) * 3))


def test_only_splits_that_both_have_are_compared():
    found = paired({0: 0.6, 1: 0.7, 4: 0.9}, {1: 0.6, 2: 0.0, 4: 0.8})
    assert found is not None
    assert found.pairs == 2
    assert found.mean == pytest.approx(0.1)
    assert paired({0: 0.5}, {1: 0.5}) is None


def test_one_pair_tells_nothing_of_the_noise():
    found = paired({0: 0.9}, {0: 0.1})
    assert found is not None
    assert found.half_width == math.inf
    assert not found.reliable
    assert not found.beyond_error


def test_two_pairs_are_too_few_for_an_interval_however_equal_they_are():
    for theirs in ({0: 0.60, 1: 0.61}, {0: 0.58, 1: 0.61}):
        found = paired({0: 0.64, 1: 0.65}, theirs)
        assert found.half_width == math.inf
        assert not found.reliable


def test_three_equal_differences_leave_an_error_of_one_image():
    found = paired({0: 0.64, 1: 0.65, 2: 0.66}, {0: 0.60, 1: 0.61, 2: 0.62}, least=797**-2)
    assert found.standard_error == pytest.approx(math.sqrt(1 / 3) / 797)
    low, high = found.interval
    assert high - low > 2 / 797


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (1, "+4.00 points (1 seed: too few seeds for an interval)"),
        (2, "+4.00 points (2 seeds: too few seeds for an interval)"),
        (3, "+4.00 points (95 % interval +3.99 to +4.01, 3 seeds)"),
    ],
)
def test_how_a_difference_reads(seeds, words):
    ours, theirs = (dict.fromkeys(range(seeds), value) for value in (0.64, 0.60))
    shown = Comparison("winner", "default", "test", paired(ours, theirs, least=0.00004**2))
    assert str(shown) == words
    assert (shown.as_dict()["interval"] is None) == (seeds < 3)


def test_equal_accuracies_on_all_splits_leave_a_spread():
    assert race({"default": [0.6, 0.6], "a": [0.5, 0.5]}).spread("a")[1] > 0


def test_the_best_mean_wins():
    found = race({"default": [0.60] * 5, "a": [0.70, 0.71, 0.69, 0.70, 0.72], "b": [0.80, 0.79, 0.81, 0.80, 0.82]})
    assert found.choice().winner == "b"
    assert found.choice().gain.mean == pytest.approx(0.204)


def test_within_one_standard_error_the_smaller_config_wins():
    accuracies = {
        "default": [0.60, 0.61, 0.59, 0.60, 0.60],
        "large": [0.80, 0.79, 0.82, 0.80, 0.81],
        "small": [0.81, 0.78, 0.81, 0.81, 0.80],
    }
    chosen = race(accuracies, {"large": 5000, "small": 500}).choice()
    assert (chosen.best, chosen.winner) == ("large", "small")
    assert race(accuracies, {"large": 500, "small": 5000}).choice().winner == "large"


def test_a_gain_within_the_noise_leaves_the_default_as_winner():
    noisy = race({"default": [0.60, 0.65, 0.58, 0.62, 0.60], "a": [0.66, 0.60, 0.61, 0.60, 0.61]})
    assert noisy.choice().winner == "default"
    assert noisy.choice().gain is None


def test_the_default_loses_ties_to_nobody_even_with_many_parameters():
    noisy = race({"default": [0.6] * 5, "a": [0.6] * 5}, {"default": 9000, "a": 10})
    assert noisy.choice().winner == "default"


def test_a_smaller_config_that_does_not_beat_the_default_is_not_considered():
    accuracies = {
        "default": [0.60, 0.66, 0.58, 0.62, 0.60],
        "good": [0.64, 0.68, 0.64, 0.65, 0.65],
        "level": [0.63, 0.63, 0.63, 0.62, 0.63],
    }
    running = race(accuracies, {"good": 5000, "level": 5})
    assert not running.difference("level", "default").beyond_error
    assert running.choice().winner == "good"


def test_equal_means_and_parameters_are_decided_by_the_loss():
    running = race({"default": [0.5] * 5, "a": [0.7] * 5, "b": [0.7] * 5})
    for fold in FIVE:
        running.add("b", fold, 0.7, loss=0.1)
    assert running.choice().winner == "b"


def test_a_contender_that_failed_on_a_split_cannot_win():
    running = race({"default": [0.5] * 5, "a": [0.6] * 5, "b": [0.7] * 4})
    running.fail("b")
    assert running.next() is None
    assert running.choice().winner == "a"


def test_without_a_default_the_best_wins():
    running = race({"default": [], "a": [0.6] * 5, "b": [0.7] * 5})
    running.fail("default")
    assert running.choice().winner == "b"
    assert running.choice().gain is None


def test_nobody_through_is_no_choice():
    running = race({"default": [], "a": []})
    running.fail("default")
    running.fail("a")
    assert running.choice() is None


def test_splits_are_run_one_after_the_other_over_all_contenders():
    running = race({"default": [], "a": []}, folds=2)
    order = []
    while (pair := running.next(running=order)) is not None:
        order.append(pair)
    assert order == [("default", 0), ("a", 0), ("default", 1), ("a", 1)]


def test_a_contender_far_behind_is_out_after_two_splits():
    running = race({"default": [0.60, 0.61], "a": [0.80, 0.81], "b": [0.79, 0.81], "bad": [0.30, 0.32]})
    assert running.alive() == {"default", "a", "b"}
    assert {pair[0] for pair in [running.next(), running.next(running=[("default", 2)])]} == {"default", "a"}


def test_the_default_is_never_out():
    running = race({"default": [0.20, 0.21], "a": [0.80, 0.81], "b": [0.80, 0.82]})
    assert "default" in running.alive()


def test_a_single_split_puts_nobody_out():
    assert race({"default": [0.6], "a": [0.9], "b": [0.1]}).alive() == {"default", "a", "b"}


def test_racing_seldom_loses_the_best_and_saves_runs():
    """Over 300 drawn races, the best true contender is left out in fewer than one in ten."""
    chooser, lost, runs = random.Random(0), 0, 0
    for _ in range(300):
        truth = {f"c{i}": 0.70 + 0.01 * i for i in range(6)}
        running = Race([Contender(name, 1) for name in ("default", *truth)], 5, 0.25, "default")
        difficulty = [chooser.gauss(0, 0.02) for _ in FIVE]
        while (pair := running.next()) is not None:
            name, fold = pair
            accuracy = {"default": 0.6, **truth}[name] + difficulty[fold] + chooser.gauss(0, 0.01)
            running.add(name, fold, accuracy, 1 - accuracy)
            runs += 1
        lost += "c5" not in running.alive()
    assert lost / 300 < 0.1
    assert runs / 300 < 0.8 * 35


def test_the_chosen_is_hardly_ever_worse_than_the_default():
    """Of four contenders no better than the default one wins by luck in fewer than a third of 500 races."""
    chooser, wrong = random.Random(1), 0
    for _ in range(500):
        names = ["default", *(f"c{i}" for i in range(4))]
        accuracies = {name: [0.7 + chooser.gauss(0, 0.02) for _ in FIVE] for name in names}
        wrong += race(accuracies).choice().winner != "default"
    assert wrong / 500 < 1 / 3


def test_the_spread_of_a_contender_is_corrected_for_shared_images():
    values = [0.6, 0.62, 0.58, 0.61, 0.59]
    mean, error = race({"default": values}).spread("default")
    assert mean == pytest.approx(0.6)
    assert error == pytest.approx(math.sqrt((0.2 + 0.25) * statistics.variance(values)))


def test_the_spread_of_a_contender_with_few_splits_leans_on_that_of_the_others():
    found = race({"default": [0.6, 0.64, 0.58, 0.61, 0.59], "a": [0.5, 0.5]})
    mean, error = found.spread("a")
    assert mean == 0.5
    assert error > 0.01


def test_a_contender_that_collapses_on_one_split_does_not_hide_the_gain_of_another():
    accuracies = {
        "default": [0.80, 0.81, 0.79, 0.80, 0.80],
        "a": [0.82, 0.83, 0.81, 0.82, 0.83],
        "b": [0.79, 0.80, 0.80, 0.81, 0.79],
        "c": [0.80, 0.81, 0.10, 0.79, 0.80],
        "d": [0.80, 0.80, 0.80, 0.80, 0.81],
    }
    assert race(accuracies).choice().winner == "a"


def test_two_equal_differences_are_no_proof():
    close = race({"default": [0.800, 0.810], "a": [0.795, 0.805]})
    assert close.alive() == {"default", "a"}
    assert close.difference("a", "default").standard_error > 0.003
