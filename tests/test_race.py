"""The race of contenders and the choice of a winner: pure arithmetic on accuracies."""

import random

import pytest

from idat_tune.differences import Outcome
from idat_tune.search.race import Contender, Race

FIVE = range(5)


def race(accuracies: dict[str, list[float]], params: dict[str, int] | None = None, folds: int = 5) -> Race:
    """A race with given results, the first contender being the default."""
    contenders = [Contender(name, (params or {}).get(name, 1000)) for name in accuracies]
    running = Race(contenders, folds, default=next(iter(accuracies)))
    for name, values in accuracies.items():
        for fold, accuracy in enumerate(values):
            running.add(name, fold, Outcome(accuracy, 1 - accuracy))
    return running


def test_equal_accuracies_on_all_splits_leave_a_spread():
    assert race({"default": [0.6, 0.6], "a": [0.5, 0.5]}).spread("a")[1] > 0


def test_the_best_mean_wins():
    found = race({"default": [0.60] * 5, "a": [0.70, 0.71, 0.69, 0.70, 0.72], "b": [0.80, 0.79, 0.81, 0.80, 0.82]})
    assert found.choice().winner == "b"
    assert found.choice().gain.mean == pytest.approx(0.204)


def test_the_best_mean_wins_and_the_smallest_that_is_as_good_is_named():
    accuracies = {
        "default": [0.60, 0.61, 0.59, 0.60, 0.60],
        "large": [0.80, 0.79, 0.82, 0.80, 0.81],
        "small": [0.81, 0.78, 0.81, 0.81, 0.80],
    }
    chosen = race(accuracies, {"large": 5000, "small": 500}).choice()
    assert (chosen.winner, chosen.smallest) == ("large", "small")
    chosen = race(accuracies, {"large": 500, "small": 5000}).choice()
    assert (chosen.winner, chosen.smallest) == ("large", "large")


def test_the_more_contenders_there_are_the_more_a_gain_must_be():
    steady = {f"c{i}": [0.60 + 0.01 * ((i + fold) % 3 - 1) for fold in FIVE] for i in range(12)}
    gain = {"a": [0.625, 0.605, 0.61, 0.62, 0.605]}
    few = race({"default": [0.60] * 5, **gain, **dict(list(steady.items())[:2])})
    many = race({"default": [0.60] * 5, **gain, **steady})
    assert few.beats_default("a")
    assert not many.beats_default("a")


def test_a_twin_that_comes_late_stays_to_the_end_and_makes_the_gate_no_narrower():
    found = race({"default": [0.60, 0.61], "a": [0.80, 0.81], "twin": [0.30, 0.31]})
    assert "twin" not in found.alive()
    found.kept.add("twin")
    assert "twin" in found.alive()


def test_a_gain_within_the_noise_leaves_the_default_as_winner():
    noisy = race({"default": [0.60, 0.65, 0.58, 0.62, 0.60], "a": [0.66, 0.60, 0.61, 0.60, 0.61]})
    assert noisy.choice().winner == "default"
    assert noisy.choice().gain is None


def test_the_default_loses_ties_to_nobody_even_with_many_parameters():
    noisy = race({"default": [0.6] * 5, "a": [0.6] * 5}, {"default": 9000, "a": 10})
    assert noisy.choice().winner == "default"


def test_a_smaller_config_that_does_not_beat_the_default_is_not_named():
    accuracies = {
        "default": [0.60, 0.66, 0.58, 0.62, 0.60],
        "good": [0.66, 0.71, 0.64, 0.67, 0.66],
        "level": [0.63, 0.63, 0.63, 0.62, 0.63],
    }
    running = race(accuracies, {"good": 5000, "level": 5})
    assert not running.beats_default("level")
    assert (running.choice().winner, running.choice().smallest) == ("good", "good")


def test_equal_means_and_parameters_are_decided_by_the_loss():
    running = race({"default": [0.5] * 5, "a": [0.7] * 5, "b": [0.7] * 5})
    for fold in FIVE:
        running.add("b", fold, Outcome(0.7, 0.1))
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
        running = Race([Contender(name, 1) for name in ("default", *truth)], 5, default="default")
        difficulty = [chooser.gauss(0, 0.02) for _ in FIVE]
        while (pair := running.next()) is not None:
            name, fold = pair
            accuracy = {"default": 0.6, **truth}[name] + difficulty[fold] + chooser.gauss(0, 0.01)
            running.add(name, fold, Outcome(accuracy, 1 - accuracy))
            runs += 1
        lost += "c5" not in running.alive()
    assert lost / 300 < 0.1
    assert runs / 300 < 0.8 * 35


def test_in_few_searches_anybody_beats_a_default_that_is_as_good():
    """Of four contenders no better than the default one wins by luck in less than one of four of 600 races."""
    chooser, wrong = random.Random(1), 0
    for _ in range(600):
        names = ["default", *(f"c{i}" for i in range(4))]
        accuracies = {name: [0.7 + chooser.gauss(0, 0.02) for _ in FIVE] for name in names}
        wrong += race(accuracies).choice().winner != "default"
    assert wrong / 600 < 0.25


def test_the_spread_of_a_contender_holds_images_and_runs():
    alone = race({"default": [0.6] * 5})
    assert alone.spread("default") == pytest.approx((0.6, (0.6 * 0.4 / 1000) ** 0.5))
    noisy = race(
        {"default": [0.6, 0.64, 0.58, 0.61, 0.59], "a": [0.7, 0.6, 0.65, 0.6, 0.7], "b": [0.6, 0.7] * 2 + [0.6]}
    )
    assert noisy.spread("a")[1] > (0.65 * 0.35 / 1000 + noisy.noise.variance / 10) ** 0.5 * 0.999
    assert noisy.noise.variance > 0


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
