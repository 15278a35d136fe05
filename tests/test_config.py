"""RunConfig and the tables that it draws on."""

import pickle

import pytest

from idat_tune import backbones, tasks
from idat_tune.config import RunConfig, parse_assignments
from idat_tune.errors import BadInput


def test_defaults_of_a_task_are_the_papers():
    config = RunConfig.for_task("clevr_dist")
    assert config.optim.lr == 5e-2
    assert config.optim.weight_decay == 5e-2
    assert config.model.drop_path == 0.1
    assert (config.student, config.teacher, config.epochs, config.batch_size) == ("vit_base", "vit_small", 100, 32)
    assert (config.adapter.hidden_dim, config.adapter.scale) == (4, 0.1)
    assert (config.distill.loss, config.distill.temperature, config.distill.weight) == ("kl", 5.0, 1.0)
    assert (config.optim.warmup_epochs, config.optim.warmup_lr, config.optim.min_lr) == (10, 1e-7, 1e-8)


def test_a_config_is_a_value():
    one, other = RunConfig.for_task("digits", {"optim.lr": 1e-3}), RunConfig.for_task("digits", {"optim.lr": "1e-3"})
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(ValueError, match="frozen"):
        one.epochs = 3


def test_flat_and_from_flat_are_inverse_and_know_all_keys():
    config = RunConfig.for_task("svhn", {"teacher": "none", "distill.loss": "mse"})
    assert RunConfig.from_flat(config.flat()) == config
    assert tuple(config.flat()) == RunConfig.all_keys()


def test_updated_changes_only_what_is_named():
    config = RunConfig.for_task("dtd")
    changed = config.updated({"adapter.hidden_dim": 64})
    assert {key for key in RunConfig.all_keys() if config.flat()[key] != changed.flat()[key]} == {"adapter.hidden_dim"}


def test_warmup_follows_the_epochs_unless_set():
    assert RunConfig.for_task("dtd", {"epochs": 30}).optim.warmup_epochs == 3
    assert [RunConfig.for_task("dtd", {"epochs": e}).optim.warmup_epochs for e in (1, 2, 3, 19, 20)] == [0, 1, 1, 1, 2]
    assert RunConfig.for_task("dtd", {"epochs": 5, "optim.warmup_epochs": 0}).optim.warmup_epochs == 0
    assert RunConfig.for_task("dtd", {"epochs": 30, "optim.warmup_epochs": 5}).optim.warmup_epochs == 5


def test_the_teacher_follows_the_student_unless_set():
    assert RunConfig.for_task("dtd", {"student": "swin_base"}).teacher == "swin_small"
    assert RunConfig.for_task("dtd", {"student": "glyph_base"}).teacher == "glyph_small"
    assert RunConfig.for_task("dtd", {"student": "swin_base", "teacher": "none"}).alone


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adapter.widht": 4}, "unknown setting 'adapter.widht'"),
        ({"adapter.hiden_dim": 4}, "did you mean 'adapter.hidden_dim'?"),
        ({"adapter.kind": "seqential"}, "unknown adapter.kind 'seqential'; did you mean 'sequential'?"),
        ({"distill.loss": "kld"}, "unknown distill.loss 'kld'; did you mean 'kl'? known: kl, mse, mae, cos"),
        ({"student": "vit_bse"}, "unknown backbone 'vit_bse'; did you mean 'vit_base'?"),
        ({"task": "digit"}, "unknown task 'digit'; did you mean 'digits'?"),
        ({"distill.temperature": 0}, "distill.temperature cannot be 0: should be greater than 0"),
        ({"distill.weight": -1}, "distill.weight cannot be -1: should be greater than or equal to 0"),
        ({"adapter.hidden_dim": 0}, "adapter.hidden_dim cannot be 0"),
        ({"optim.lr": "fast"}, "optim.lr cannot be 'fast'"),
        ({"optim.lr": float("nan")}, "optim.lr cannot be nan"),
        ({"epochs": True}, "epochs cannot be true: it is not a switch"),
        ({"epochs": 2.5}, "epochs cannot be 2.5"),
        ({"epochs": 5, "optim.warmup_epochs": 5}, "leaves none of 5 epochs to train in"),
        ({"device": "gpu"}, "device cannot be 'gpu': known: auto, cpu, mps, cuda, cuda:N"),
        ({"device": "cuda:٣"}, "device cannot be 'cuda:٣'"),
        ({"adapter": 3}, "unknown setting 'adapter'"),
        ({"adapter.kind": ["lora"]}, "adapter.kind cannot be ['lora']: it takes a single word or number"),
        ({"student": {}}, "student cannot be {}: it takes a single word or number"),
        ({"student": None}, "student has no value; give one"),
        ({"teacher": None}, "teacher has no value; 'none' trains without one"),
        ({"teacher": False}, "teacher cannot be false: it is not a switch; 'none' trains without one"),
        ({"epochs": "²"}, "epochs cannot be '²'"),
        ({"epochs": 10**5000}, "epochs cannot be a very long number"),
        ({"epochs": 10**7}, "less than or equal to 1000000"),
        ({"batch_size": 10**20}, "batch_size cannot be 100000000000000000000"),
        ({"adapter.hidden_dim": 10**9}, "less than or equal to 65536"),
        ({"optim.lr": "a\nb"}, r"optim.lr cannot be 'a\\nb'"),
        ({"adapter.kind": "Parallel-Shared"}, "did you mean 'parallel_shared'?"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(changes, sentence):
    with pytest.raises(BadInput) as caught:
        RunConfig.for_task("digits").updated(changes)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": "²"},
        {"epochs": "9" * 5000},
        {"epochs": 10**5000},
        {"student": ["vit_base"]},
        {"student": None},
        {"student": 3},
        {"teacher": "\udc80"},
    ],
)
def test_the_config_of_a_task_refuses_strange_changes_in_one_sentence(changes):
    with pytest.raises(BadInput) as caught:
        RunConfig.for_task("digits", changes)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_no_teacher_may_be_written_as_python_writes_it():
    assert RunConfig.for_task("dtd", {"teacher": "None"}).alone


def test_errors_cross_processes():
    error = BadInput("what came, what is known")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_assignments_are_read_as_yaml():
    assert parse_assignments(["epochs=3", "teacher=none", "distill.detach_teacher=true"]) == {
        "epochs": 3,
        "teacher": "none",
        "distill.detach_teacher": True,
    }
    assert parse_assignments(["optim.lr=1e-3", "seed=010", "student=1:30"]) == {
        "optim.lr": 1e-3,
        "seed": 10,
        "student": "1:30",
    }
    assert parse_assignments(["adapter.kind=[a]"]) == {"adapter.kind": "[a]"}
    with pytest.raises(BadInput, match="student has no value"):
        parse_assignments(["student="])
    with pytest.raises(BadInput, match="unknown setting ''"):
        parse_assignments(["=3"])
    with pytest.raises(BadInput, match="write it as key=value"):
        parse_assignments(["epochs"])
    with pytest.raises(BadInput, match="given twice"):
        parse_assignments(["epochs=3", "epochs=4"])


def test_every_vtab_task_is_there_with_its_group():
    assert len(tasks.select(["all"])) == 19
    sizes = {group: len(tasks.select([group])) for group in tasks.GROUPS if group != "own"}
    assert sizes == {"natural": 7, "specialized": 4, "structured": 8, "embedded": 3}
    assert sum(task.classes for task in tasks.select(["all"])) == 940
    assert sum(task.test for task in tasks.select(["all"])) == 387_904
    assert tasks.get("smallnorb_ele").classes == 9


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("cifar100", "cifar"),
        ("CIFAR-100", "cifar"),
        ("pets", "oxford_iiit_pet"),
        ("flowers102", "oxford_flowers102"),
        ("Clevr/distance", "clevr_dist"),
    ],
)
def test_aliases_resolve(alias, name):
    assert tasks.get(alias).name == name


def test_a_group_and_its_task_are_not_searched_twice():
    names = [task.name for task in tasks.select(["dtd", "natural"])]
    assert names[0] == "dtd"
    assert len(names) == len(set(names)) == 7


def test_the_group_of_own_tasks_says_how_to_have_one_where_there_is_none(monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", {name: task for name, task in tasks.TASKS.items() if task.group != "own"})
    with pytest.raises(BadInput, match="no task of your own is imported yet; `idat-tune data import"):
        tasks.select(["digits", "own"])


def test_timm_names_pass_and_nonsense_does_not():
    assert backbones.check("vit_tiny_patch16_224.augreg_in21k")
    assert backbones.check("random:swin_tiny_patch4_window7_224")
    with pytest.raises(BadInput, match="unknown backbone 'resnet50'"):
        backbones.check("resnet50")


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({}, ["distill.temperature", "distill.weight", "adapter.init"], ["adapter.scale"]),
        ({"teacher": "none"}, ["optim.lr", "teacher"], ["distill.weight", "distill.loss", "distill.temperature"]),
        ({"distill.loss": "mse"}, ["distill.target", "distill.weight"], ["distill.temperature", "distill.direction"]),
        ({"distill.weight": 0}, ["distill.weight"], ["distill.loss", "distill.detach_teacher"]),
        ({"adapter.kind": "lora"}, ["adapter.scale", "adapter.hidden_dim"], ["adapter.init"]),
        ({"adapter.kind": "bitfit"}, ["adapter.kind"], ["adapter.scale", "adapter.hidden_dim", "adapter.init"]),
    ],
)
def test_settings_in_use_are_those_that_make_a_difference(changes, present, absent):
    found = RunConfig.for_task("digits", changes).in_use()
    assert set(present) <= set(found)
    assert not set(absent) & set(found)
    assert found["task"] == "digits"
