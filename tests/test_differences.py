"""Paired differences: one variance from images and runs, symmetric, and as wide as it must be."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from idat_tune.differences import PRIOR, Design, Noise, Outcome, difference, noise_of
from idat_tune.search.verdict import Comparison

SPLITS = Design(1000, crossed=False)
TEST = Design(400, crossed=True)
NONE = Noise()


def outcomes(hits_RN):
    return {run: Outcome(float(row.mean()), hits=row) for run, row in enumerate(hits_RN)}


def plain(*accuracies):
    return {run: Outcome(accuracy) for run, accuracy in enumerate(accuracies)}


def drawn(rng, accuracies, runs, images, crossed, spread=0.0):
    """Hits of configs (config, run, image): images differ in how hard they are, runs in luck."""
    shape = (len(accuracies), runs, images)
    luck = np.clip(np.reshape(accuracies, (-1, 1)) + spread * rng.standard_normal(shape[:2]), 0.01, 0.99)
    hardness = rng.standard_normal((1, 1, images) if crossed else (1, runs, images))
    own = rng.standard_normal((shape[0], 1, images) if crossed else shape)
    each = rng.standard_normal(shape)
    latent = 0.8**0.5 * hardness + (0.12**0.5 * own + 0.08**0.5 * each if crossed else 0.2**0.5 * own)
    return ndtri(luck)[..., None] + latent > 0


@pytest.mark.parametrize("design", [SPLITS, TEST])
def test_ours_and_theirs_change_places_without_a_trace(design):
    rng = np.random.default_rng(0)
    configs = [outcomes(hits) for hits in drawn(rng, [0.7, 0.72, 0.75, 0.7], 5, 200, design.crossed, 0.02)]
    noise = noise_of(configs, design)
    assert noise == noise_of(configs[::-1], design)
    for ours in configs:
        for theirs in configs:
            there, back = (difference(*pair, design, noise) for pair in ((ours, theirs), (theirs, ours)))
            assert there.mean == pytest.approx(-back.mean, abs=1e-12)
            assert (there.standard_error, there.degrees) == pytest.approx((back.standard_error, back.degrees))


def test_without_hits_and_without_others_it_is_the_t_test():
    ours, theirs = (0.52, 0.58, 0.55), (0.50, 0.53, 0.54)
    found = difference(plain(*ours), plain(*theirs), SPLITS, NONE)
    known = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found.interval == pytest.approx((known.low, known.high))
    assert found.pairs == 3


def test_where_many_runs_vouch_for_it_the_images_alone_are_mcnemar():
    rng = np.random.default_rng(1)
    ours, theirs = drawn(rng, [0.78, 0.80], 5, 200, crossed=False)
    found = difference(outcomes(ours), outcomes(theirs), SPLITS, Noise(0.0, 10**6))
    only_one = (ours != theirs).sum()
    assert found.standard_error == pytest.approx(math.sqrt(only_one) / 1000, rel=0.03)


def test_the_variance_of_the_test_is_that_of_a_two_way_layout():
    """Image, run and rest, by sums of squares, against the same restated with loops."""
    rng = np.random.default_rng(2)
    ours, theirs = drawn(rng, [0.7, 0.75], 3, 60, crossed=True, spread=0.02)
    found = difference(outcomes(ours), outcomes(theirs), Design(60, crossed=True), NONE)
    values = ours.astype(float) - theirs
    runs, images = values.shape
    mean, of_run, of_image = values.mean(), values.mean(axis=1), values.mean(axis=0)
    between_runs = sum((value - mean) ** 2 for value in of_run) / (runs - 1)
    between_images = runs * sum((value - mean) ** 2 for value in of_image) / (images - 1)
    rest = sum((values[r, i] - of_run[r] - of_image[i] + mean) ** 2 for r in range(runs) for i in range(images)) / (
        (runs - 1) * (images - 1)
    )
    assert found.standard_error**2 == pytest.approx(between_runs / runs + (between_images - rest) / runs / images)


def test_an_image_that_several_splits_repeat_counts_once():
    rng = np.random.default_rng(3)
    once = drawn(rng, [0.7, 0.72], 5, 200, crossed=False)
    twice = np.concatenate([once, once], axis=1)
    noise = Noise(0.0, 10**6)
    single = difference(outcomes(once[0]), outcomes(once[1]), SPLITS, noise)
    repeated = difference(outcomes(twice[0]), outcomes(twice[1]), SPLITS, noise)
    assert repeated.standard_error == pytest.approx(single.standard_error, rel=0.01)


def test_only_runs_that_both_have_are_compared():
    found = difference(
        {0: Outcome(0.6), 1: Outcome(0.7), 4: Outcome(0.9)},
        {1: Outcome(0.6), 2: Outcome(0.0), 4: Outcome(0.8)},
        SPLITS,
        NONE,
    )
    assert found.pairs == 2
    assert found.mean == pytest.approx(0.1)
    assert difference({0: Outcome(0.5)}, {1: Outcome(0.5)}, SPLITS, NONE) is None


def test_one_pair_tells_nothing_of_the_noise():
    found = difference(plain(0.9), plain(0.1), SPLITS, NONE)
    assert found.half_width == math.inf
    assert not found.reliable
    assert not found.beyond_error


def test_two_pairs_are_too_few_for_an_interval_however_equal_they_are():
    for theirs in ((0.60, 0.61), (0.58, 0.61)):
        found = difference(plain(0.64, 0.65), plain(*theirs), SPLITS, NONE)
        assert found.half_width == math.inf
        assert not found.reliable


def test_equal_differences_leave_an_error_of_one_image():
    found = difference(plain(0.64, 0.65, 0.66), plain(0.60, 0.61, 0.62), SPLITS, NONE, least=797**-2)
    assert found.standard_error == pytest.approx(math.sqrt(1 / 3) / 797)


def test_a_config_that_collapses_in_one_run_says_nothing_of_the_noise_of_the_rest():
    rng = np.random.default_rng(4)
    configs = [outcomes(hits) for hits in drawn(rng, [0.78] * 6, 5, 200, crossed=False)]
    wild = {**configs[0], 2: Outcome(0.1, hits=np.arange(200) < 20)}
    assert noise_of([wild, *configs[1:]], SPLITS).variance < 0.03**2


def test_of_two_configs_alone_no_noise_is_known_beside_their_own():
    assert noise_of([plain(0.5, 0.6), plain(0.6, 0.5)], SPLITS) == Noise()
    assert noise_of([plain(0.5, 0.6, 0.7)] * 9, SPLITS).degrees == PRIOR


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_intervals_cover_the_truth_about_as_often_as_they_say(crossed, spread):
    """Without any true difference, 95 % intervals leave out 0 in 2 to 8 % of 1,200 pairs."""
    rng = np.random.default_rng(5)
    runs, images = (3, 400) if crossed else (5, 200)
    design, missed, pairs = Design(400 if crossed else 1000, crossed), 0, 0
    for _ in range(300):
        configs = [outcomes(hits) for hits in drawn(rng, [0.78] * 5, runs, images, crossed, spread)]
        noise = noise_of(configs, design)
        for other in configs[1:]:
            missed += difference(other, configs[0], design, noise).reliable
            pairs += 1
    assert 0.02 <= missed / pairs <= 0.08


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (1, "+4.00 points (1 seed: too few seeds for an interval)"),
        (2, "+4.00 points (2 seeds: too few seeds for an interval)"),
        (3, "+4.00 points (95 % interval +3.99 to +4.01, 3 seeds)"),
    ],
)
def test_how_a_difference_reads(seeds, words):
    found = difference(plain(*[0.64] * seeds), plain(*[0.60] * seeds), TEST, NONE, least=0.00004**2)
    shown = Comparison("winner", "default", "test", found)
    assert str(shown) == words
    assert (shown.as_dict()["interval"] is None) == (seeds < 3)
