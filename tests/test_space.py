"""Search spaces: the YAML format, its conditions, and what is refused."""

import random

import pytest
import yaml

from idat_tune import space
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.space import Choice, Range


def draw(generator):
    def ask(label, domain):
        if isinstance(domain, Choice):
            return generator.choice(domain.values)
        return generator.uniform(domain.low, domain.high)

    return ask


def refused(text):
    with pytest.raises(BadInput) as caught:
        space.parse(yaml.safe_load(text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", space.named())
def test_every_point_of_a_shipped_space_is_a_valid_run(name):
    loaded = space.load(name)
    generator = random.Random(0)
    for _ in range(500):
        RunConfig.for_task("dtd", loaded.propose(draw(generator)))


@pytest.mark.parametrize("name", space.named())
def test_a_shipped_space_tells_its_story(name):
    story = (space.folder() / f"{name}.yaml").read_text()
    assert story.startswith("#")
    assert "Result:" in story


@pytest.mark.parametrize("name", ["idat", "embedded"])
def test_a_default_space_searches_all_that_the_paper_fixed_by_hand(name):
    searched = {param.key for param in space.load(name).params}
    wanted = {"teacher", "adapter.kind", "adapter.hidden_dim", "adapter.scale", "distill.loss", "distill.temperature"}
    assert wanted | {"distill.weight", "optim.lr"} <= searched


def test_conditions_switch_keys_on_and_off():
    loaded = space.load("embedded")
    generator = random.Random(1)
    points = [loaded.propose(draw(generator)) for _ in range(500)]
    for point in points:
        distilled = point["teacher"] != "none"
        assert ("distill.loss" in point) == distilled
        assert ("distill.weight" in point) == distilled
        assert ("distill.temperature" in point) == (point.get("distill.loss") == "kl")
        assert ("adapter.scale" in point) == (point["adapter.kind"] != "sequential")
    kl = [point["distill.weight"] for point in points if point.get("distill.loss") == "kl"]
    mse = [point["distill.weight"] for point in points if point.get("distill.loss") == "mse"]
    assert max(kl) > 5 >= max(mse)


def test_a_condition_may_stand_before_what_it_asks_about():
    temperature = {"uniform": [2, 10], "when": {"distill.loss": "kl"}}
    loaded = space.parse({"params": {"distill.temperature": temperature, "distill.loss": {"choice": ["kl", "mse"]}}})
    assert [param.key for param in loaded.params] == ["distill.loss", "distill.temperature"]


def test_numbers_that_yaml_reads_as_text_are_numbers():
    loaded = space.parse({"params": {"optim.lr": {"log_uniform": ["1e-4", "1e-2"]}}})
    assert loaded.params[0].domain == Range(1e-4, 1e-2, log=True)


def test_a_fixed_key_is_not_searched_any_more():
    held = space.load("embedded").with_fixed({"teacher": "none", "epochs": 3})
    assert "teacher" not in {param.key for param in held.params}
    point = held.propose(draw(random.Random(0)))
    assert (point["teacher"], point["epochs"]) == ("none", 3)
    assert "distill.loss" not in point


def test_a_config_inside_the_space_gets_the_samplers_names_and_one_outside_none():
    loaded = space.load("embedded")
    inside = RunConfig.for_task("digits", {"distill.weight": 2.0}).flat()
    labels = loaded.labels_of(inside)
    assert labels["distill.weight[distill.loss=kl]"] == 2.0
    assert "adapter.scale" not in labels
    assert loaded.labels_of({**inside, "optim.lr": 1.0}) is None
    assert loaded.labels_of({**inside, "epochs": 11}) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("params: 3", "a space is a mapping"),
        ("[1, 2]", "a space is a mapping"),
        ("{params: {}, parms: {}}", "unknown section 'parms'; did you mean 'params'?"),
        ("params: {optim.rl: {choice: [1]}}", "unknown setting 'optim.rl'; did you mean 'optim.lr'?"),
        ("params: {task: {choice: [dtd]}}", "'task' is chosen with --task"),
        ("params: {optim.lr: 3}", "'optim.lr' needs a domain"),
        ("params: {optim.lr: {linear: [1, 2]}}", "unknown domain of 'optim.lr': 'linear'"),
        ("params: {optim.lr: {uniform: [1]}}", "needs [low, high]"),
        ("params: {optim.lr: {uniform: [2, 1]}}", "needs low < high"),
        ("params: {distill.weight: {log_uniform: [0, 1]}}", "needs 0 < low < high"),
        ("params: {optim.lr: {uniform: [-1, 1]}}", "optim.lr cannot be -1"),
        ("params: {adapter.hidden_dim: {uniform: [1, 4]}}", "are whole numbers; use int_uniform"),
        ("params: {adapter.kind: {uniform: [1, 2]}}", "unknown adapter.kind '1'"),
        (
            "params: {teacher: {choice: [vit_small, vit_small]}}",
            "names a value twice",
        ),
        ("params: {adapter.kind: {choice: [serial]}}", "unknown adapter.kind 'serial'; did you mean 'sequential'?"),
        ("params: {adapter.kind: {choice: []}}", "at least one value"),
        (
            "params: {optim.lr: {choice: [1], when: {teacher: none}}}",
            "depends on 'teacher', which this space does not set",
        ),
        (
            "params: {optim.lr: {choice: [1], when: {techer: none}}}",
            "unknown setting 'techer'; did you mean 'teacher'?",
        ),
        (
            "params: {optim.lr: {choice: [1], when: {teacher: none}}, teacher: {choice: [vit_base]}}",
            "unknown value of 'teacher'",
        ),
        ("{params: {optim.lr: {choice: [1]}}, fixed: {optim.lr: 1}}", "stands both in params and in fixed"),
        ("{params: {}, fixed: {epochs: 0}}", "epochs cannot be 0"),
        ("{params: {}, start: {epochs: 1}}", "`start` is a list"),
        ("params: {optim.lr: [{uniform: [1, 2]}, {uniform: [3, 4]}]}", "each needs a `when` or an `unless`"),
    ],
)
def test_a_faulty_space_is_refused_with_its_key(text, sentence):
    assert sentence in refused(text)


def test_circular_conditions_are_refused():
    text = """
    params:
      distill.loss: {choice: [kl, mse], when: {adapter.kind: parallel}}
      adapter.kind: {choice: [parallel, sequential], when: {distill.loss: kl}}
    """
    assert "go round in a circle" in refused(text)


def test_a_file_is_named_in_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "mine.yaml"
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        space.load(str(path))
    path.write_text("params: {a: [")
    with pytest.raises(BadInput, match="not valid YAML: line 1, column"):
        space.load(str(path))
    path.write_text("params: {lr: {choice: [1]}}")
    with pytest.raises(BadInput, match="mine.yaml: unknown setting 'lr'"):
        space.load(str(path))
    with pytest.raises(BadInput, match="unknown space 'idta'; did you mean 'idat'?"):
        space.load("idta")
