"""What Ray Tune gets of a trial, without Ray: a result per epoch, and failures with their reasons."""

from types import SimpleNamespace

import pytest
import torch
from conftest import glyphs, noise
from safetensors.torch import save

from idat_tune import data, model, rounds, trial
from idat_tune.engine import frozen
from idat_tune.engine.eager import Eager
from idat_tune.engine.stage import Stage
from idat_tune.errors import BadInput
from idat_tune.journal import COMPLETE, EXPLORE, FAILED, TEST

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


def no_room(monkeypatch, owner, method, call):
    """Let that call of a method find no room, half-way; counts the calls."""
    plain, calls = getattr(owner, method), []

    def limited(self, *arguments, **named):
        calls.append(arguments)
        done = plain(self, *arguments, **named)
        if len(calls) == call:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return done

    monkeypatch.setattr(owner, method, limited)
    return calls


def results(found):
    shown = [found.step()]
    while not shown[-1]["done"]:
        shown.append(found.step())
    return [(result["status"], result.get("train_loss"), result.get("val_loss")) for result in shown]


@pytest.mark.parametrize(("owner", "staged"), [(Eager, False), (Stage, True)])
@pytest.mark.parametrize(("method", "call"), [("_step", 1), ("_step", 5), ("validate", 2)])
def test_a_trial_that_finds_no_room_tries_once_more_with_the_same_result(monkeypatch, owner, staged, method, call):
    wanted = job(optim__warmup_epochs=0, model__drop_path=0.2, epochs=3)

    def begun_there():
        found = begun(wanted)
        found.worker.staged = staged
        return found

    plain = results(begun_there())
    calls = no_room(monkeypatch, owner, method, call)
    assert results(begun_there()) == plain
    assert plain[-1][0] == COMPLETE
    assert len(calls) > call


def test_a_trial_for_which_there_is_never_room_fails_with_the_reason(monkeypatch):
    def never(self, index, weight):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Eager, "_step", never)
    result = begun(job()).step()
    assert (result["status"], result["done"]) == (FAILED, True)
    assert result["reason"].startswith("OutOfMemory: cpu ran out of memory: student glyph_base")


@pytest.mark.parametrize(
    ("actor", "assigned", "share"),
    [
        (None, {"GPU": 0.25}, 1.0),
        ("a", {"CPU": 1.0, "GPU": 0.25}, 0.25),
        ("a", {"GPU": 2.0}, 1.0),
        ("a", {"CPU": 1.0}, 1.0),
    ],
)
def test_workers_that_share_a_gpu_know_which_part_is_theirs(actor, assigned, share, monkeypatch):
    here = SimpleNamespace(get_actor_id=lambda: actor, get_assigned_resources=lambda: assigned)
    monkeypatch.setattr(trial.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(trial.ray, "get_runtime_context", lambda: here)
    assert trial.gpu_share() == share
    assert trial.Worker(SPLITS).resident(glyphs())._share == share


class Ended(BaseException):
    """The process ended."""


@pytest.fixture
def ends(monkeypatch):
    """A GPU that computes no more once a step has failed, and a process whose end can be seen."""

    def end(code):
        raise Ended(code)

    def illegal(*_, **__):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(trial, "broken", lambda device: True)
    monkeypatch.setattr(trial.os, "_exit", end)
    monkeypatch.setattr(Eager, "_step", illegal)
    monkeypatch.setattr(Stage, "_step", illegal)


def test_a_worker_whose_gpu_computes_no_more_ends(ends, caplog):
    found = begun(job())
    with pytest.raises(Ended):
        found.step()
    assert "cpu computes no more, so this process ends: CUDA error: an illegal memory access" in caplog.text


def test_a_host_whose_gpu_computes_no_more_ends(ends):
    several = rounds.Rounds(SPLITS)
    with pytest.raises(Ended):
        several.next({"one": job(), "other": job(seed=1)})


def test_a_trial_that_fails_by_itself_ends_no_worker(ends, monkeypatch):
    monkeypatch.setattr(trial, "broken", lambda device: False)
    result = begun(job()).step()
    assert result["reason"].startswith("AcceleratorError: CUDA error")


def test_students_that_are_tested_together_share_what_is_frozen_and_are_what_they_were(monkeypatch):
    monkeypatch.setattr(trial.ray, "get", lambda state: state)
    monkeypatch.setattr(data, "batches", lambda *_: iter([noise(50, seed=2), noise(30, seed=3)]))
    read = []
    monkeypatch.setattr(frozen, "frozen_backbone", lambda *of: read.append(of[0]) or model.frozen_backbone(*of))
    students, wanted = {}, []
    for kind in ("sequential", "full", "bitfit", "linear", "full"):
        config = glyphs(adapter__kind=kind, teacher="none", optim__warmup_epochs=0, seed=len(students))
        training = trial.run_on(trial.Worker(SPLITS).resident(config), config, torch.arange(64), torch.arange(0))
        list(training)
        name = f"{kind}-{len(students)}"
        students[name] = (config.flat(), save(training.student.trained_state()))
        batches = [trial.to_device(images, training.device) for images in (noise(50, seed=2), noise(30, seed=3))]
        wanted.append([name, *trial.evaluate_all({"": (training.student, config)}, batches)[""]])
    read.clear()
    found = begun({"id": "test", "stage": TEST, "config": glyphs().flat(), "students": students})
    result = found.step()
    assert result["tested"] == [[name, accuracy, pytest.approx(loss, rel=1e-6)] for name, accuracy, loss in wanted]
    assert read == ["glyph_base"]
    with pytest.raises(StopIteration):
        found.step()


def test_a_test_that_finds_no_room_tries_once_more(monkeypatch):
    answers = iter([torch.OutOfMemoryError("CUDA out of memory"), {"": (0.5, 1.0)}])

    def evaluated(students, batches):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(trial, "evaluate_all", evaluated)
    monkeypatch.setattr(trial.ray, "get", lambda state: state)
    state = save(model.build("glyph_base", 10, glyphs(), seed=0).trained_state())
    found = begun({"id": "t", "stage": TEST, "config": glyphs().flat(), "students": {"": (glyphs().flat(), state)}})
    assert found.step()["tested"] == [["", 0.5, 1.0]]


@pytest.mark.parametrize(("threads", "wanted"), [("1", 1), ("2,1", 2)])
def test_a_worker_computes_with_as_many_threads_as_it_is_told(monkeypatch, threads, wanted):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    before = torch.get_num_threads()
    try:
        trial.settle()
        assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)
