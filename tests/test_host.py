"""A host: several trials at once in one process, each with the results that it has on a worker of its own."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import glyphs, noise

from idat_tune import host as host_module
from idat_tune.engine.staged import Staged
from idat_tune.errors import OutOfMemory
from idat_tune.host import Host, in_powers_of_two
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, FINAL
from idat_tune.trial import Trial

SPLITS = {"train": noise(64), "val": noise(32, seed=1)}
LEARNT = ("train_loss", "train_ce_student", "train_ce_teacher", "train_distill", "val_loss", "lr")
SAME = ("epoch", "status", "done", "val_accuracy", "val_images", "trainable_params")
WAIT = 60  # seconds after which something hangs


@pytest.fixture
def host():
    return Host(SPLITS, 4)


@pytest.fixture
def companies(monkeypatch):
    """How many runs had each epoch as one."""
    sizes, advance = [], host_module.advance

    def watched(trainings):
        sizes.append(len(trainings))
        return advance(trainings)

    monkeypatch.setattr(host_module, "advance", watched)
    return sizes


def job(id, stage=EXPLORE, fold=None, **changes):
    config = glyphs(epochs=3, optim__warmup_epochs=1, **changes)
    return {"id": id, "stage": stage, "fold": fold, "config": config.flat()}


def numbers(result, keys):
    return {key: result[key] for key in keys if result[key] is not None}


def at_once(host, jobs):
    """All results of the jobs, by id, each asked for by a thread of its own as by a seat."""
    for one in jobs:
        host.begin(one)

    def asked(one):
        results = [host.step(one["id"])]
        while not results[-1]["done"]:
            results.append(host.step(one["id"]))
        host.leave(one["id"])
        return results

    with ThreadPoolExecutor(len(jobs)) as seats:
        asking = {one["id"]: seats.submit(asked, one) for one in jobs}
        return {id: results.result(WAIT) for id, results in asking.items()}


def alone(one):
    """The same on a worker that has nothing else."""
    trial = Trial.__new__(Trial)
    trial.setup(one, SPLITS)
    results = [trial.step()]
    while not results[-1]["done"]:
        results.append(trial.step())
    return results


def test_trials_of_a_host_have_the_results_that_they_have_alone(host, companies):
    jobs = [
        job("one", adapter__kind="parallel", adapter__hidden_dim=5, adapter__scale=0.4),
        job("two", adapter__kind="parallel", adapter__hidden_dim=8, optim__lr=2e-2, distill__weight=7.0, seed=1),
        job("another shape", adapter__kind="sequential"),
        job("does not stack", adapter__kind="ssf"),
        job("other rows", CONFIRM, 1, adapter__kind="parallel", adapter__hidden_dim=8),
        job("more rows", FINAL, adapter__kind="parallel", adapter__hidden_dim=8),
    ]
    found = at_once(host, jobs)
    for one in jobs:
        for ours, theirs in zip(found[one["id"]], alone(one), strict=True):
            assert numbers(ours, LEARNT) == pytest.approx(numbers(theirs, LEARNT), rel=1e-3)
            assert [ours[key] for key in SAME] == [theirs[key] for key in SAME]
    assert "state" in found["more rows"][-1]
    assert max(companies) == 2
    assert sum(companies) == 3 * len(jobs)


def test_trials_of_one_shape_go_on_as_one(host, companies):
    found = at_once(host, [job(f"seed {seed}", seed=seed) for seed in range(4)])
    assert companies == [4, 4, 4]
    assert {results[-1]["status"] for results in found.values()} == {COMPLETE}
    assert len({results[-1]["train_loss"] for results in found.values()}) == 4


def test_a_trial_that_fails_or_diverges_does_so_alone(host):
    jobs = [job("good"), job("wild", optim__lr=1e30, seed=1), job("wide", adapter__hidden_dim=500)]
    found = at_once(host, jobs)
    assert found["good"][-1]["train_loss"] == pytest.approx(alone(jobs[0])[-1]["train_loss"], rel=1e-4)
    assert [found[name][-1]["status"] for name in ("wild", "wide")] == [FAILED, FAILED]
    assert "Diverged: the training loss became" in found["wild"][-1]["reason"]
    assert found["wild"][-1]["epoch"] == alone(jobs[1])[-1]["epoch"]
    assert "BadInput: adapter.hidden_dim 500" in found["wide"][-1]["reason"]


@pytest.mark.parametrize("during", ["train_together", "validate_together"])
def test_trials_that_find_no_room_as_one_go_on_in_smaller_companies(host, companies, monkeypatch, during):

    together = getattr(Staged, during)

    def roomy(trials, *more):
        if len(trials) > 2:
            raise torch.OutOfMemoryError("no room")
        return together(trials, *more)

    monkeypatch.setattr(Staged, during, staticmethod(roomy))
    jobs = [job(f"seed {seed}", seed=seed) for seed in range(4)]
    found = at_once(host, jobs)
    assert companies == [4, 2, 2, 2, 2, 2, 2]
    for one in jobs:
        losses = [result["train_loss"] for result in found[one["id"]]]
        assert losses == pytest.approx([result["train_loss"] for result in alone(one)], rel=1e-4)


def test_a_trial_that_finds_no_room_by_itself_fails_with_the_reason(host, monkeypatch):
    def full(trainings):
        raise OutOfMemory("cuda ran out of memory")

    monkeypatch.setattr(host_module, "advance", full)
    (result,) = at_once(host, [job("one")])["one"]
    assert (result["status"], result["reason"]) == (FAILED, "OutOfMemory: cuda ran out of memory")


def test_a_seat_that_is_gone_holds_up_one_round_alone(host, monkeypatch):
    monkeypatch.setattr(host_module, "GRACE", 0.3)
    waits, wait_for = [], threading.Condition.wait_for

    def noted(self, predicate, timeout=None):
        fulfilled = wait_for(self, predicate, timeout)
        if timeout is not None and not fulfilled:
            waits.append(timeout)
        return fulfilled

    monkeypatch.setattr(threading.Condition, "wait_for", noted)
    host.begin(job("gone"))
    at_once(host, [job("here")])
    assert waits == [0.3]


def test_a_trial_that_begins_again_starts_from_its_beginning(host):
    host.begin(job("one"))
    first = [host.step("one") for _ in range(2)]
    host.begin(job("one"))
    assert host.step("one")["train_loss"] == first[0]["train_loss"]
    host.leave("one")
    host.leave("one")
    assert not host.guests


@pytest.mark.parametrize(
    ("count", "most", "wanted"), [(1, 9, [1]), (4, 9, [4]), (7, 9, [4, 2, 1]), (7, 3, [2, 2, 2, 1]), (3, 1, [1, 1, 1])]
)
def test_companies_come_in_few_sizes(count, most, wanted):
    assert [len(company) for company in in_powers_of_two(list(range(count)), most)] == wanted
