"""What Ray Tune gets of a trial, without Ray: a result per epoch, and failures with their reasons."""

import pytest
import torch
from conftest import glyphs, noise

from idat_tune import trial
from idat_tune.errors import BadInput
from idat_tune.journal import COMPLETE, EXPLORE, FAILED

SPLITS = {"train": noise(64), "val": noise(32, seed=1)}


def job(**changes):
    return {"id": "one", "stage": EXPLORE, "config": glyphs(**changes).flat()}


def begun(config):
    found = trial.Trial.__new__(trial.Trial)
    found.setup(config, SPLITS)
    return found


def test_a_worker_that_cannot_be_set_up_says_why_for_each_of_its_trials(monkeypatch):
    def broken():
        raise BadInput("the folder of your own tasks cannot be read")

    monkeypatch.setattr(trial, "settle", broken)
    found = begun(job())
    for _ in range(2):
        result = found.step()
        assert (result["status"], result["done"], result["epoch"]) == (FAILED, True, 0)
        assert result["reason"] == "BadInput: the folder of your own tasks cannot be read"
        found.reset_config(job())


def test_a_trial_that_fails_leaves_the_next_one_as_it_is():
    found = begun(job(optim__lr=1e30, optim__warmup_epochs=0, epochs=3))
    results = [found.step()]
    while not results[-1]["done"]:
        results.append(found.step())
    assert "Diverged: the training loss became" in results[-1]["reason"]
    found.reset_config(job())
    assert [found.step()["status"] for _ in range(2)] == [trial.RUNNING, COMPLETE]


@pytest.mark.parametrize(("threads", "wanted"), [("1", 1), ("2,1", 2)])
def test_a_worker_computes_with_as_many_threads_as_it_is_told(monkeypatch, threads, wanted):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    before = torch.get_num_threads()
    try:
        trial.settle()
        assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)
