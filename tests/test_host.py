"""A host: several trials at once in one process, each with the results that it has by itself."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from conftest import glyphs, noise

from idat_tune.engine.recorded import Recorded
from idat_tune.engine.recording import Recording
from idat_tune.errors import OutOfMemory
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, FINAL
from idat_tune.metrics import EpochMetrics
from idat_tune.worker import host as host_module
from idat_tune.worker import rounds, trial
from idat_tune.worker.host import Host
from idat_tune.worker.rounds import Rounds, in_powers_of_two
from idat_tune.worker.trial import FAULT, Trial

SPLITS = {"train": noise(64), "val": noise(32, seed=1)}
LEARNT = ("train_loss", "train_ce_student", "train_ce_teacher", "train_distill", "val_loss", "lr")
SAME = ("epoch", "status", "done", "val_accuracy", "val_images", "trainable_params")
WAIT = 60  # seconds after which something hangs


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setattr(host_module, "GRACE", WAIT)  # so that no round depends on how busy the machine is
    return prepared()


def prepared():
    found = Host(stacks=True)
    found.prepare(SPLITS)
    return found


@pytest.fixture
def companies(monkeypatch):
    """How many runs had each epoch as one."""
    sizes, advance = [], rounds.advance

    def watched(trainings):
        sizes.append(len(trainings))
        return advance(trainings)

    for of in (rounds, trial):
        monkeypatch.setattr(of, "advance", watched)
    return sizes


EPOCH = EpochMetrics(0, 1e-3, 4.0, 2.0, 2.0, 0.1, 0.5, 1.0, 0.5, 1.0, 640.0, None)


def job(id, stage=EXPLORE, fold=None, **changes):
    config = glyphs(epochs=3, optim__warmup_epochs=1, **changes)
    return {"id": id, "stage": stage, "fold": fold, "contender": None, "config": config.flat()}


def numbers(result, keys):
    return {key: result[key] for key in keys if result[key] is not None}


def at_once(host, jobs):
    """All results of the jobs, by id, each asked for by a thread of its own as by a seat."""
    for one in jobs:
        host.begin(one["id"], one)

    def asked(one):
        results = [host.step(one["id"])]
        while not results[-1]["done"]:
            results.append(host.step(one["id"]))
        host.leave(one["id"])
        return results

    seats = ThreadPoolExecutor(len(jobs))
    asking = {one["id"]: seats.submit(asked, one) for one in jobs}
    seats.shutdown(wait=False)
    return {id: results.result(WAIT) for id, results in asking.items()}


def alone(one):
    """The same on a worker that has nothing else."""
    by_itself, results = Rounds(SPLITS, stacks=False), []
    while not results or not results[-1]["done"]:
        results.append(by_itself.next({"it": one})["it"])
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
    assert max(companies) == 2
    assert sum(companies) == 3 * len(jobs)
    for one in jobs:
        for ours, theirs in zip(found[one["id"]], alone(one), strict=True):
            assert numbers(ours, LEARNT) == pytest.approx(numbers(theirs, LEARNT), rel=1e-3)
            assert [ours[key] for key in SAME] == [theirs[key] for key in SAME]
    assert "state" in found["more rows"][-1]


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
    assert "BadInput: backbone glyph_base: adapter.hidden_dim 500" in found["wide"][-1]["reason"]


@pytest.mark.parametrize(("during", "call"), [("_distilled", 2), ("_evaluate", 1)])
def test_trials_that_find_no_room_as_one_go_on_in_smaller_companies(host, companies, monkeypatch, during, call):
    jobs = [job(f"seed {seed}", seed=seed, model__drop_path=0.3) for seed in range(4)]
    wanted = {one["id"]: at_once(prepared(), [one])[one["id"]] for one in jobs}
    companies.clear()
    step, recordings = getattr(Recording, during), []

    def roomy(recording):
        if recording.runs > 2:
            recordings.append(weakref.ref(recording))
            if len(recordings) == call:
                raise torch.OutOfMemoryError("no room")
        step(recording)

    monkeypatch.setattr(Recording, during, roomy)
    found = at_once(host, jobs)
    assert companies == [4, 2, 2, 2, 2, 2, 2]
    gc.collect()
    assert recordings[0]() is None
    for id, results in found.items():
        for ours, theirs in zip(results, wanted[id], strict=True):
            assert numbers(ours, LEARNT) == pytest.approx(numbers(theirs, LEARNT), rel=1e-4)
            assert ours["images_per_second"] < 1e5


@pytest.mark.parametrize(("tries", "status"), [(1, COMPLETE), (2, FAILED)])
def test_a_trial_that_finds_no_room_by_itself_tries_once_more_and_fails_with_the_reason(
    host, monkeypatch, tries, status
):
    full, advance = ["cuda ran out of memory"] * tries, trial.advance

    def filling(trainings):
        if full:
            raise OutOfMemory(full.pop())
        return advance(trainings)

    monkeypatch.setattr(trial, "advance", filling)
    last = at_once(host, [job("one")])["one"][-1]
    assert last["status"] == status
    assert status == COMPLETE or last["reason"] == "OutOfMemory: cuda ran out of memory"


def test_a_seat_that_is_gone_holds_up_one_round_alone(host, monkeypatch):
    monkeypatch.setattr(host_module, "GRACE", 0.3)
    waits, wait_for = [], threading.Condition.wait_for

    def noted(self, predicate, timeout=None):
        fulfilled = wait_for(self, predicate, timeout)
        if timeout is not None and not fulfilled:
            waits.append(timeout)
        return fulfilled

    monkeypatch.setattr(threading.Condition, "wait_for", noted)
    host.begin("gone", job("gone"))
    at_once(host, [job("here")])
    assert waits == [0.3]


def test_two_attempts_of_a_trial_are_two_guests(host, monkeypatch):
    monkeypatch.setattr(host_module, "GRACE", 0.1)
    host.begin("first", job("one"))
    first = [host.step("first") for _ in range(2)]
    host.begin("second", job("one"))
    assert host.step("second")["train_loss"] == first[0]["train_loss"]
    host.leave("first")
    assert host.step("second")["train_loss"] == pytest.approx(first[1]["train_loss"], rel=1e-6)
    host.leave("second")
    host.leave("second")
    assert not host.guests


def test_a_result_that_cannot_be_made_is_a_fault_of_its_trial_alone(host, monkeypatch):
    made = Trial.result

    def no_room(run, epoch):
        if run.job["id"] == "bad":
            raise RuntimeError("no room to copy")
        return made(run, epoch)

    monkeypatch.setattr(Trial, "result", no_room)
    found = at_once(host, [job("good"), job("bad", seed=1)])
    assert found["good"][-1]["status"] == COMPLETE
    assert [result["reason"] for result in found["bad"]] == ["RuntimeError: no room to copy"]


def test_an_error_in_company_is_that_of_who_has_it_alone(host, companies, monkeypatch):
    train = Recorded.train_together

    def breaking(trials, epochs):
        if any(trial.standing.config.seed == 2 for trial in trials):
            raise RuntimeError("broken")
        return train(trials, epochs)

    monkeypatch.setattr(Recorded, "train_together", staticmethod(breaking))
    found = at_once(host, [job(f"seed {seed}", seed=seed) for seed in range(4)])
    assert [results[-1]["status"] for results in found.values()] == [COMPLETE, COMPLETE, FAULT, COMPLETE]
    assert found["seed 2"][0]["reason"] == "RuntimeError: broken"


def test_every_epoch_of_a_round_took_as_long_as_the_round(host):
    jobs = [job("one"), job("two", seed=1), job("other", adapter__kind="ssf")]
    found = at_once(host, jobs)
    for epoch in range(3):
        assert len({results[epoch]["seconds"] for results in found.values()}) == 1
        assert {results[epoch]["gpu_memory_gb"] for results in found.values()} == {None}


def test_a_trial_that_is_alone_in_its_process_has_its_own_times():
    found = alone(job("one"))
    assert all(result["seconds"] < 1e3 and result["images_per_second"] > 0 for result in found)


def test_a_trial_waits_until_its_host_is_prepared():
    waiting = Host(stacks=False)
    began = ThreadPoolExecutor(1).submit(waiting.begin, "one", job("one"))
    assert not began.done()
    waiting.prepare(SPLITS)
    began.result(WAIT)
    assert waiting.step("one")["epoch"] == 0


def test_a_trial_that_waits_hears_that_its_host_cannot_be_prepared(monkeypatch):
    waiting = Host(stacks=False)
    began = ThreadPoolExecutor(1).submit(waiting.begin, "one", job("one"))

    def broken(images, stacks):
        raise OSError("no such folder")

    monkeypatch.setattr(rounds, "Rounds", broken)
    with pytest.raises(OSError, match="no such folder"):
        waiting.prepare(SPLITS)
    with pytest.raises(OSError, match="no such folder"):
        began.result(WAIT)


def test_a_trial_whose_seat_died_while_it_waited_is_let_go_and_one_that_comes_too_late_is_not_taken(host):
    host.begin("waits", job("waits"))
    host.rounds.next = lambda jobs: threading.Event().wait()  # an epoch without end
    waits = ThreadPoolExecutor(1).submit(host.step, "waits")
    host.leave("waits")
    with pytest.raises(KeyError):
        waits.result(WAIT)
    host.leave("late")
    host.begin("late", job("late"))
    assert not host.guests


def test_a_trial_that_has_left_leaves_its_memory_though_no_other_comes(host):
    host.begin("one", job("one"))
    host.step("one")
    kept = weakref.ref(host.rounds._trials["one"])
    host.leave("one")
    for _ in range(100):
        gc.collect()
        if kept() is None:
            break
        threading.Event().wait(0.05)
    assert kept() is None


def test_a_trial_that_waits_for_others_is_slower(host):
    host.begin("one", job("one"))
    host.step("one")
    result = host.rounds._result("one", replace(EPOCH, seconds=2.0), 8.0)
    assert (result["seconds"], result["images_per_second"]) == (8.0, EPOCH.images_per_second / 4)


@pytest.mark.parametrize(
    ("count", "most", "wanted"), [(1, 9, [1]), (4, 9, [4]), (7, 9, [4, 2, 1]), (7, 3, [2, 2, 2, 1]), (3, 1, [1, 1, 1])]
)
def test_companies_come_in_few_sizes(count, most, wanted):
    assert [len(company) for company in in_powers_of_two([*"abcdefg"[:count]], most)] == wanted
