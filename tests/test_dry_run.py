"""The cost before launch: real Ray, real steps, nothing written."""

import json
import re

import pytest
import torch
from conftest import command, glyphs

from idat_tune import data
from idat_tune.engine.resident import Resident
from idat_tune.metrics import Speed
from idat_tune.search import measuring
from idat_tune.search.estimates import cost_key
from idat_tune.worker.probe import AFFORDED, Probed, probe


@pytest.fixture(scope="module")
def estimated(tmp_path_factory):
    """The JSON of a dry run over two tasks, and where it could have written."""
    out = tmp_path_factory.mktemp("out")
    done = command(
        "search", "--task", "digits", "--task", "sprites_loc", "--trials", 6, "--epochs", 3, "--dry-run",
        "--price-per-hour", 3, "--out", out / "runs", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), out, done


@pytest.mark.slow
def test_a_dry_run_measures_and_foresees_and_writes_nothing(estimated):
    (first, second), out, done = estimated
    assert list(out.iterdir()) == []
    first_line, *steps = done.stderr.splitlines()
    assert first_line == "measuring a few real steps; nothing is written"
    assert all(re.fullmatch(r".* \((\d+ \w+ ?)+\)", line) for line in steps)
    for task in ("digits", "sprites_loc"):
        last = [line for line in steps if line.startswith(f"{task}: ")][-1]
        assert re.match(rf"{task}: (\d+) of \1 measured ", last)
    assert (first["task"], second["task"]) == ("digits", "sprites_loc")
    for found in (first, second):
        assert found["hours"] > 0
        assert 9 < found["epochs"]["explore"] <= 18
        assert 27 < found["epochs"]["final"] <= 36  # the winner may have a twin
        assert 0 < found["memory"]["per_trial_gb"] < 1
        assert not found["memory"]["measured"]
        assert all(probed["seconds_per_1000_images"] > 0 for probed in found["probed"])
    assert first["start_seconds"] > 0 == second["start_seconds"]


@pytest.mark.slow
def test_cheapest_dearest_default_and_alone_are_among_the_measured_ones(estimated):
    (found, _), _, _ = estimated
    probed = found["probed"]
    assert len(probed) == measuring.PROBES
    gflops = [each["gflop_per_image"] for each in probed]
    assert (gflops[0], gflops[1]) == (min(gflops), max(gflops))
    assert {each["config"]["teacher"] for each in probed} >= {"none", "glyph_small", "glyph_base"}


@pytest.mark.slow
def test_money_is_by_the_hour_of_the_machine_where_trials_take_no_gpu(estimated):
    for found in estimated[0]:
        assert found["price"] == {"per": "hour", "per_hour": 3, "total": pytest.approx(3 * found["hours"])}


def test_money_is_by_the_gpu_hour_where_trials_take_gpus():
    assert measuring._price(2.0, 0.5, 10.0, 4.0) == {"per": "GPU-hour", "per_hour": 2.0, "total": 8.0}
    assert measuring._price(None, 0.5, 10.0, 4.0) is None


def test_as_many_trials_fit_a_gpu_as_its_memory_holds():
    probed = {glyphs(): Probed(Speed(1, 1, 0), 5.4), glyphs(teacher="none"): Probed(Speed(1, 1, 0), 2.0)}
    assert measuring._memory(probed, {}, 80.0) == {"per_trial_gb": 6.0, "measured": True, "trials_per_gpu": 13}


def test_a_config_that_was_not_measured_lies_between_those_that_were():
    wide = glyphs(adapter__hidden_dim=32)
    costs = {
        config: {"gflop_per_image": {"forward": gflop, "backward": 0.0}}
        for config, gflop in ((glyphs(teacher="none"), 1.0), (glyphs(), 2.0), (wide, 3.0))
    }
    probed = {
        config: Probed(Speed(cost["gflop_per_image"]["forward"], 0.5, 0.1), None)
        for config, cost in costs.items()
        if config != glyphs()
    }
    speed = measuring._speeds(probed, costs)[cost_key(glyphs().flat())]
    assert (speed.train, speed.val, speed.beside) == pytest.approx((2.0, 0.5, 0.1))


@pytest.fixture(scope="module")
def resident():
    """The images of digits as a worker keeps them, and their rows."""
    train, val = (data.load("digits", split, 32, 1) for split in ("train", "val"))
    return Resident(data.joined(train, val), torch.device("cpu")), torch.arange(800), torch.arange(800, 1000)


def test_a_slow_config_is_measured_on_a_few_steps_and_a_quick_one_on_whole_epochs(monkeypatch, resident):
    seen = []

    def timing(seconds):
        def timed(resident, config, train, val, epochs):
            seen.append((len(train), len(val), epochs))
            return Probed(Speed(seconds / 1000, 0.0, 0.0), None)

        return timed

    images, train, val = resident
    for seconds in (10 * AFFORDED, 0.1 * AFFORDED):
        monkeypatch.setattr("idat_tune.worker.probe._timed", timing(seconds))
        probe(images, glyphs(), train, val)
    assert seen == [(64, 64, 1), (64, 64, 1), (64, 64, 1), (800, 200, 2)]


def test_a_probe_is_a_real_training(resident):
    images, train, val = resident
    found = probe(images, glyphs(epochs=1), train, val)
    assert found.speed.train > 0
    assert found.memory_gb is None


def test_a_price_below_zero_is_refused():
    done = command("search", "--task", "digits", "--dry-run", "--price-per-hour", "-1")
    assert done.returncode == 2
    assert "--price-per-hour cannot be -1: it must be greater than 0" in done.stderr
