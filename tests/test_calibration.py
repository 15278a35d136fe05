"""The benchmark of the statistics: what it draws is what it says, and what it counts is counted rightly."""

import numpy as np
import pytest

from benchmarks import calibration
from benchmarks.calibration import FOLDS, VAL, Images, coverage, of_fold, search
from idat_tune.search.race import Race


def test_runs_have_the_accuracy_and_the_luck_that_were_asked_for():
    draw = np.random.default_rng(0)
    steady, lucky = ([Images(draw, 1, 4000).run(0, 0.78, s).accuracy for _ in range(200)] for s in (0.0, 0.025))
    assert np.mean(steady) == pytest.approx(0.78, abs=0.002)
    assert np.std(steady) < 0.012
    assert np.std(lucky) == pytest.approx(0.026, abs=0.005)


def test_two_configs_that_are_as_good_disagree_on_every_sixth_image():
    images = Images(np.random.default_rng(1), 2, 20_000)
    one, other = (images.run(config, 0.78, 0.0).hits for config in range(2))
    assert np.mean(one != other) == pytest.approx(0.16, abs=0.02)


def test_every_split_has_images_of_its_own():
    rows = np.arange(FOLDS * VAL)
    assert np.concatenate([rows[of_fold(fold)] for fold in range(FOLDS)]).tolist() == rows.tolist()


def test_the_truth_is_covered_whether_there_is_a_difference_or_not():
    draw = np.random.default_rng(2)
    for gain in (0.0, 0.05):
        found = coverage(draw, 0.78, [0.006] * 5, crossed=False, gain=gain, repeats=100)
        assert found.pairs == 100
        assert found.covered >= 88
        assert found.claimed <= 10 if not gain else found.claimed > 60


def test_a_search_finds_what_is_much_better_and_nothing_where_nothing_is():
    draw = np.random.default_rng(3)
    better = [search(draw, 0.78, 0.006, 2, 0.08, Race) for _ in range(10)]
    assert sum(found.won for found in better) >= 9
    assert all(found.gain == pytest.approx(0.08) for found in better if found.won)
    level = [search(draw, 0.78, 0.006, 2, 0.0, Race) for _ in range(20)]
    assert sum(found.won for found in level) <= 6
    assert {found.gain for found in level} == {0.0}


def test_its_lines_are_tables(monkeypatch):
    monkeypatch.setattr(calibration, "LEVELS", (0.78,))
    monkeypatch.setattr(calibration, "SPREADS", (0.006,))
    monkeypatch.setattr(calibration, "recorded", lambda task: (10, 9))
    lines = list(calibration.tables(4, 2))
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert len(widths) == 3
    assert lines[-1].endswith("90.0 % of 10 pairs covered.")
