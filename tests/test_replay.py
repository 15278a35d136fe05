"""Searches replayed on recorded curves: the parts are the real ones, only the training is looked up."""

import json
from dataclasses import replace

import pytest
import toy
from conftest import command

from idat_tune import space
from idat_tune.errors import BadInput
from idat_tune.metrics import WORST
from idat_tune.replay import compare, table
from idat_tune.replay.nearest import Nearest
from idat_tune.replay.simulate import Benchmark, Confirm, Explore, choose, replay
from idat_tune.search.config import GRID, MEDIAN, NONE, RANDOM, TPE


@pytest.fixture(scope="module")
def runs():
    return list(toy.recordings())


@pytest.fixture(scope="module")
def benchmark(runs):
    return Benchmark(runs, "digits", space.load("embedded"))


@pytest.fixture(scope="module")
def path(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "curves.parquet"
    table.write(path, runs, {"made by": "a test"})
    return path


def test_a_table_comes_back_as_it_was_written_to_seven_digits(runs, path):
    back = {(run.task, run.config, run.fold): run for run in table.read(path)}
    assert len(back) == len(runs)
    for run in runs:
        found = back[run.task, run.config, run.fold]
        assert found.point == run.point
        assert found.val_accuracy == pytest.approx(run.val_accuracy, rel=1e-6)
        assert found.test_accuracy == pytest.approx(run.test_accuracy, rel=1e-6)
    assert table.story(path) == {"made by": "a test"}


def test_a_file_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        table.read(tmp_path / "absent.parquet")
    (tmp_path / "other.parquet").write_text("no table")
    with pytest.raises(BadInput, match=r"benchmarks\.record"):
        table.read(tmp_path / "other.parquet")


def test_a_run_that_diverged_ranks_below_all_others_and_counts_as_zero(runs):
    diverged = replace(runs[0], val_accuracy=(0.5,), val_loss=(1.0,), test_accuracy=None, test_loss=None)
    assert diverged.scores(3)[1:] == (WORST, WORST)
    curves = table.curves_of([diverged, replace(runs[1], test_accuracy=0.8)], "digits")["default"]
    assert curves.truth == pytest.approx(0.4)


def test_only_configs_with_all_folds_are_searched(runs):
    partial = [run for run in runs if run.config != "random-003" or run.fold < 3]
    assert "random-003" not in table.curves_of(partial, "digits")


def test_a_table_without_the_arms_is_refused(runs):
    with pytest.raises(BadInput, match="no_distill"):
        Benchmark([run for run in runs if run.config != "no_distill"], "digits", space.load("embedded"))


def test_the_nearest_config_is_the_config_itself_if_it_was_recorded(benchmark):
    for name, labels in benchmark.labels.items():
        if name in benchmark.nearest.names:
            assert benchmark.nearest.of(labels, benchmark.nearest.names) == name


def test_the_nearest_config_is_near_by_its_logarithm_and_within_the_branch():
    searched = space.parse(
        {
            "params": {
                "teacher": {"choice": ["none", "glyph_small"]},
                "distill.weight": {"log_uniform": [0.1, 100], "unless": {"teacher": "none"}},
                "optim.lr": {"log_uniform": [1e-4, 1e-2]},
            }
        }
    )
    joint = {"teacher": "glyph_small", "distill.weight": 1.0}
    recorded = {
        "low": {**joint, "optim.lr": 1e-4},
        "high": {**joint, "optim.lr": 1e-2},
        "alone": {"teacher": "none", "optim.lr": 8e-4},
    }
    nearest = Nearest(searched, recorded)
    assert nearest.order({**joint, "optim.lr": 8e-4}) == ["low", "high", "alone"]
    assert nearest.of({**joint, "optim.lr": 8e-4}, ["high", "alone"]) == "high"
    assert nearest.order({"teacher": "none", "optim.lr": 1e-2})[0] == "alone"


@pytest.mark.parametrize("sampler", [TPE, RANDOM, GRID])
def test_a_replay_tries_the_arms_first_and_nothing_twice(benchmark, sampler):
    _, trials = replay(benchmark, Explore(sampler), seed=0, trials=20)
    names = [trial.config for trial in trials]
    assert tuple(names[:3]) == table.ARMS
    assert tuple(names[3 : 3 + len(benchmark.starts)]) == benchmark.starts
    assert len(set(names)) == 20


def test_a_replay_ends_when_everything_recorded_was_tried(benchmark):
    _, trials = replay(benchmark, Explore(RANDOM, NONE), seed=0, trials=1000)
    assert len(trials) == len(benchmark.curves)


def test_the_same_replay_repeats_and_another_one_differs(benchmark):
    first, again, other = (replay(benchmark, Explore(), seed, 16) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_shorter_replay_is_the_beginning_of_a_longer_one(benchmark):
    assert replay(benchmark, Explore(), 3, 12)[1] == replay(benchmark, Explore(), 3, 24)[1][:12]


@pytest.mark.parametrize("stopping", ["halving", MEDIAN])
def test_stopping_saves_epochs_but_never_the_arms(benchmark, stopping):
    _, trials = replay(benchmark, Explore(RANDOM, stopping), seed=0, trials=40)
    assert all(trial.epochs == toy.EPOCHS for trial in trials[:3])
    assert sum(trial.epochs for trial in trials) < 40 * toy.EPOCHS * 0.8
    assert all((trial.score is None) == (trial.epochs < toy.EPOCHS) for trial in trials)


def test_without_stopping_every_trial_runs_to_its_end(benchmark):
    _, trials = replay(benchmark, Explore(RANDOM, NONE), seed=0, trials=20)
    assert {trial.epochs for trial in trials} == {toy.EPOCHS}


def test_unconfirmed_the_best_score_wins_and_costs_nothing_more(benchmark):
    fold, trials = replay(benchmark, Explore(RANDOM, NONE), seed=0, trials=20)
    chosen = choose(benchmark, trials, fold, Confirm(top_k=0))
    assert chosen.config == max(trials, key=lambda trial: trial.score).config
    assert (chosen.explored, chosen.confirmed) == (200, 0)


def test_confirming_reads_other_folds_than_exploring_and_counts_its_epochs(runs):
    """On the fold that is explored all are equally good, so only the others can show which is best."""
    blurred = [replace(run, val_accuracy=(0.5,) * 10, val_loss=(1.0,) * 10) if run.fold == 0 else run for run in runs]
    benchmark = Benchmark(blurred, "digits", space.load("embedded"))
    fold, trials = replay(benchmark, Explore(RANDOM, NONE), seed=0, trials=30)
    assert fold == 0
    chosen = choose(benchmark, trials, fold, Confirm(top_k=30))
    truths = sorted((benchmark.truth[trial.config] for trial in trials), reverse=True)
    assert benchmark.truth[chosen.config] >= truths[9]
    assert 0 < chosen.confirmed <= 30 * 4 * toy.EPOCHS
    assert chosen.confirmed % toy.EPOCHS == 0


def test_a_comparison_holds_the_defaults_against_random_search_at_full_budget(path):
    (found,) = compare.compare(path, ["digits"], [], replays=4, most=16, processes=1, log=lambda line: None)
    base, defaults = found.curves
    assert (base.setting, defaults.setting) == (compare.BASE, "defaults")
    assert [point.trials for point in defaults.points] == [8, 12, 16]
    assert base.points[-1].epochs == 63 * toy.EPOCHS, "the table has 63 configs"
    assert found.default < found.base.test_accuracy <= found.best
    assert defaults.points[-1].epochs < base.points[-1].epochs


def test_epochs_between_two_points_are_interpolated():
    points = [compare.Point(8, 80, 20, 0.5, 0.1, 0, 0, 1), compare.Point(16, 160, 40, 0.7, 0.1, 0, 0, 1)]
    curve = compare.Curve("any", 2, tuple(points))
    assert curve.epochs_to(0.6) == pytest.approx(150)
    assert curve.epochs_to(0.4) == 100
    assert curve.epochs_to(0.8) is None
    assert curve.accuracy_at(150) == pytest.approx(0.6)
    assert curve.accuracy_at(50) is None


def test_a_comparison_changes_the_defaults_in_one_thing_at_a_time():
    defaults = compare.Setting()
    settings = compare.chosen_settings([compare.ALL])
    for name in settings.keys() - {compare.BASE, "defaults"}:
        pairs = [(settings[name].explore, defaults.explore), (settings[name].confirm, defaults.confirm)]
        changed = [key for ours, theirs in pairs for key in vars(ours) if vars(ours)[key] != vars(theirs)[key]]
        assert len(changed) == 1, name


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--replays", 1], "--replays cannot be 1"),
        (["--trials", 2], "--trials cannot be 2"),
        (["--processes", 0], "--processes cannot be 0"),
        (["--task", "digit"], "did you mean 'digits'"),
        (["--compare", "sampler"], "did you mean 'samplers'"),
        (["--table", "absent.parquet"], "absent.parquet cannot be read"),
    ],
)
def test_a_request_that_cannot_be_met_ends_with_one_sentence(path, arguments, wanted):
    table_given = [] if "--table" in arguments else ["--table", path]
    done = command("bench", *table_given, *arguments)
    assert done.returncode == 2
    assert wanted in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_prints_json_and_draws(path, tmp_path):
    picture = tmp_path / "picture.png"
    done = command("bench", "--table", path, "--replays", 2, "--trials", 8, "--json", "--picture", picture)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [task["task"] for task in found["tasks"]] == ["digits", "sprites_loc"]
    assert found["tasks"][0]["settings"][1]["points"][0]["trials"] == 8
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_table_that_we_ship_is_small_and_complete():
    assert table.SHIPPED.stat().st_size < 1_000_000
    recordings = table.read()
    assert table.tasks_of(recordings) == ("digits", "sprites_loc")
    for task in table.tasks_of(recordings):
        curves = table.curves_of(recordings, task)
        assert len(curves) >= 200
        assert {len(run.val_accuracy) for known in curves.values() for run in known.runs.values()} == {10}
        assert all(set(known.runs) == {0, 1, 2, 3, 4} for known in curves.values())
