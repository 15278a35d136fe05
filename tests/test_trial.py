"""What comes of a trial on a worker, without Ray: a result per epoch, failures with their reasons, faults."""

import os
import platform
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import glyphs, noise
from safetensors.torch import save

from idat_tune import data, model, weights
from idat_tune.engine import frozen
from idat_tune.engine.eager import Eager
from idat_tune.engine.recording import Recording
from idat_tune.errors import BadInput
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, TEST
from idat_tune.journal.hits import packed, unpacked
from idat_tune.predictions import keep, read
from idat_tune.run import Evaluated
from idat_tune.worker import opening, trial
from idat_tune.worker.rounds import Rounds

SPLITS = {"train": noise(64), "val": noise(32, seed=1)}


def job(**changes):
    return {"id": "one", "stage": EXPLORE, "config": glyphs(**changes).flat()}


def finalist(state, teacher=None, **changes):
    return {"config": glyphs(**changes).flat(), "state": state, "teacher": teacher, "contender": None}


class Alone:
    """A trial that has its worker to itself, and then another."""

    def __init__(self, wanted):
        self.rounds = Rounds(SPLITS, stacks=False)
        self.worker = self.rounds.worker
        self.next(wanted)

    def next(self, wanted):
        self.rounds.keep(())
        self.wanted = wanted

    def step(self):
        return self.rounds.next({"it": self.wanted})["it"]


def begun(wanted):
    return Alone(wanted)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"config": {**job()["config"], "task": "of-another-machine"}}, "Unfit: unknown task 'of-another-machine'"),
        ({"weights": [["glyph_base", {"sha256": "other", "source": "x"}]]}, "Unfit: "),
        ({"stage": TEST}, "Unfit: task digits is not imported"),
    ],
)
def test_what_is_wrong_with_this_machine_is_no_result_of_a_trial(changes, reason, monkeypatch):
    def other(*_):
        raise BadInput("other weights than this search was begun with")

    def absent(*_):
        raise BadInput("task digits is not imported")

    monkeypatch.setattr(weights, "check_same", other)
    monkeypatch.setattr(data, "batches", absent)
    monkeypatch.setattr(trial.ray, "get", lambda state: state)
    state = save(model.build("glyph_base", 10, glyphs(), seed=0).trained_state())
    result = begun({**job(), "students": {"": finalist(state)}, **changes}).step()
    assert (result["status"], result["done"], result["unfit"]) == (trial.FAULT, True, True)
    assert result["reason"].startswith(reason)


def test_every_result_says_where_it_is_from():
    found = begun(job()).step()
    assert (found["worker"], found["node"]) == (os.getpid(), platform.node())


def test_a_trial_that_fails_leaves_the_next_one_as_it_is():
    found = begun(job(optim__lr=1e30, optim__warmup_epochs=0, epochs=3))
    results = [found.step()]
    while not results[-1]["done"]:
        results.append(found.step())
    assert "Diverged: the training loss became" in results[-1]["reason"]
    found.next(job())
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


@pytest.mark.parametrize(("owner", "recorded"), [(Eager, False), (Recording, True)])
@pytest.mark.parametrize(("method", "call"), [("_step", 1), ("_step", 5), ("validate", 2)])
def test_a_trial_that_finds_no_room_tries_once_more_with_the_same_result(monkeypatch, owner, recorded, method, call):
    wanted = job(optim__warmup_epochs=0, model__drop_path=0.2, epochs=3)

    def begun_there():
        found = begun(wanted)
        found.worker.recorded = recorded
        return found

    plain = results(begun_there())
    calls = no_room(monkeypatch, owner, method, call)
    assert results(begun_there()) == plain
    assert plain[-1][0] == COMPLETE
    assert len(calls) > call


def test_a_trial_for_which_there_is_never_room_fails_with_the_reason(monkeypatch):
    def never(self, *_):
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


@pytest.mark.parametrize("failure", [torch.AcceleratorError("CUDA error: an illegal access"), ValueError("no idea")])
@pytest.mark.parametrize("stacks", [False, True])
def test_an_error_that_is_no_known_one_is_a_fault_after_which_the_worker_is_replaced(monkeypatch, failure, stacks):
    """A GPU may compute no more after one, and then would fail every later trial."""

    def illegal(*_, **__):
        raise failure

    monkeypatch.setattr(Eager, "_step", illegal)
    monkeypatch.setattr(Recording, "_step", illegal)
    found = Rounds(SPLITS, stacks).next({"one": job(), "other": job(seed=1)})
    for result in found.values():
        assert (result["status"], result["unfit"], result["done"]) == (trial.FAULT, False, True)
        assert result["reason"] == f"{type(failure).__name__}: {failure}"


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
        state = save(training.student.trained_state())
        students[name] = {"config": config.flat(), "state": state, "teacher": None, "contender": None}
        batches = [opening.to_device(images, training.device) for images in (noise(50, seed=2), noise(30, seed=3))]
        of_one, labels = opening.evaluate_all({"": (training.student, config)}, batches)
        wanted.append((name, of_one[""], labels))
    read.clear()
    found = begun({"id": "test", "stage": TEST, "config": glyphs().flat(), "students": students})
    result = found.step()
    for row, kept, (name, (accuracy, loss, logits), labels) in zip(
        result["tested"], result["predictions"], wanted, strict=True
    ):
        hits = (logits.argmax(dim=1) == labels).numpy()
        assert row == [name, accuracy, pytest.approx(loss, rel=1e-6), packed(hits)]
        assert unpacked(row[3]).mean() == pytest.approx(accuracy)
        assert kept[0] == name
    assert read == ["glyph_base"]


@pytest.mark.parametrize("teacher", ["glyph_small", "none"])
def test_a_run_that_confirms_says_what_it_thinks_of_every_val_image(tmp_path, teacher):
    asked = {**job(teacher=teacher), "stage": CONFIRM, "fold": 1, "contender": "trial-003"}
    confirming = begun(asked)
    results = [confirming.step() for _ in range(asked["config"]["epochs"])]
    assert all("hits" not in result for result in results[:-1])
    last = results[-1]
    assert unpacked(last["hits"]).mean() == pytest.approx(last["val_accuracy"])
    for name, said in last["predictions"]:
        keep(tmp_path, name, said)
    (found,) = read(tmp_path)
    assert (found.run.trial, found.run.contender, found.run.fold) == (asked["id"], "trial-003", 1)
    assert (found.run.stage, found.run.seed) == (CONFIRM, asked["config"]["seed"])
    assert (found.hits == unpacked(last["hits"])).all()
    _, rows = confirming.worker.rows(asked)
    assert found.images.tolist() == rows.tolist()
    assert (found.teacher is None) == (teacher == "none")
    assert found.teacher is None or found.teacher.shape == found.student.shape


def test_students_with_teachers_are_tested_with_them_and_with_their_other_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(trial.ray, "get", lambda state: state)
    monkeypatch.setattr(data, "batches", lambda *_: iter([noise(80, seed=2)]))
    students, logits = {}, {}
    pixels, labels = opening.to_device(noise(80, seed=2), torch.device("cpu"))
    for name, changes in (
        ("a", {}),
        ("b", {"seed": 1}),
        ("alone", {"teacher": "none"}),
        ("other", {"distill__weight": 2.0}),
    ):
        config = glyphs(optim__warmup_epochs=0, **changes)
        training = trial.run_on(trial.Worker(SPLITS).resident(config), config, torch.arange(64), torch.arange(0))
        list(training)
        models = [training.student, *([training.teacher] if training.teacher else [])]
        states = [save(model.trained_state()) for model in models]
        students[name] = {"config": config.flat(), "state": states[0], "teacher": None, "contender": "c"}
        if len(models) == 2:
            students[name]["teacher"] = states[1]
        with torch.no_grad():
            logits[name] = [model.eval()(pixels).double() for model in models]
    result = begun({"id": "test", "stage": TEST, "config": glyphs().flat(), "students": students}).step()
    rows = {name: (accuracy, loss, unpacked(hits)) for name, accuracy, loss, hits in result["tested"]}
    pairs = {f"{name}+teacher": logits[name] for name in ("a", "b", "other")}
    pairs |= {"a+seed": [logits["a"][0], logits["b"][0]], "b+seed": [logits["b"][0], logits["a"][0]]}
    assert rows.keys() == {*students, *pairs}
    for name, (one, other) in pairs.items():
        mean = (one.softmax(dim=-1) + other.softmax(dim=-1)) / 2
        accuracy, loss, hits = rows[name]
        assert loss == pytest.approx(float(-mean[range(80), labels].log().mean()), rel=1e-4)
        assert (hits == (mean.argmax(dim=-1) == labels).numpy()).mean() > 0.98
        assert accuracy == pytest.approx(hits.mean())
    for name, said in result["predictions"]:
        keep(tmp_path, name, said)
    assert {found.run.trial: found.teacher is not None for found in read(tmp_path)} == {
        "a": True, "alone": False, "b": True, "other": True,
    }  # fmt: skip


def test_a_test_that_finds_no_room_tries_once_more(monkeypatch):
    right = Evaluated(0.5, 1.0, torch.eye(10)[:2])
    answers = iter([torch.OutOfMemoryError("CUDA out of memory"), ({"": right}, torch.tensor([0, 3]))])

    def evaluated(students, batches):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(opening, "evaluate_all", evaluated)
    monkeypatch.setattr(trial.ray, "get", lambda state: state)
    state = save(model.build("glyph_base", 10, glyphs(), seed=0).trained_state())
    found = begun({"id": "t", "stage": TEST, "config": glyphs().flat(), "students": {"": finalist(state)}})
    assert found.step()["tested"] == [["", 0.5, 1.0, packed(np.array([True, False]))]]


@pytest.mark.parametrize(("threads", "wanted"), [("1", 1), ("2,1", 2)])
def test_a_worker_computes_with_as_many_threads_as_it_is_told(monkeypatch, threads, wanted):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    before = torch.get_num_threads()
    try:
        trial.settle()
        assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)
