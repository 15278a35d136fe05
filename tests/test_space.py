"""Search spaces: the YAML format, its conditions, and what is refused."""

import random

import pytest

from idat_tune import space
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.kinds import KINDS
from idat_tune.reading import yaml_value
from idat_tune.space import Choice, Range


def draw(generator):
    def ask(label, domain):
        if isinstance(domain, Choice):
            return generator.choice(domain.values)
        return generator.uniform(domain.low, domain.high)

    return ask


def refused(text):
    with pytest.raises(BadInput) as caught:
        space.parse(yaml_value(text))
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


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("params: {}", "`params` is empty"),
        ("optim.lr: {log_uniform: [0.001, 0.1]}", "put the keys under `params:`"),
        ("params: {optim: {lr: {log_uniform: [0.001, 0.1]}}}", "write its keys with a dot, such as optim.lr"),
        ("params: {adapter.hidden_dim: [4, 8]}", "needs a domain such as {choice: [4, 8]}"),
        ("params: {adapter.hidden_dim: 8}", "needs a domain such as {choice: [8]}"),
        ("params: {teacher: {choice: [null, vit_small]}}", "'none' trains without one"),
        ("params: {teacher: {choice: [no, vit_small]}}", "it is not a switch; 'none' trains without one"),
        ("params: {adapter.kind: {choice: [[lora], ssf]}}", "it takes a single word or number"),
        ("params: {optim.lr: {choice: [0.001, 1e-3]}}", "names a value twice"),
        ("params: {optim.lr: {log_uniform: [0.001, 1000]}}", "goes up to 1000, where training diverges"),
        ("params: {optim.lr: {int_uniform: [1, 2]}}", "are no whole numbers; use uniform"),
        ("params: {distill.detach_teacher: {int_uniform: [false, true]}}", "are no numbers; use choice"),
        ("params: {optim.lr: {choice: [1], when: }}", "`when` of 'optim.lr' is a mapping"),
        ("params: {optim.lr: {choice: [1], unless: {teacher: []}}}", "names no value of 'teacher'"),
        (f"params: {{epochs: {{choice: [{'9' * 5000}]}}}}", "epochs cannot be '999"),
        ("params: {batch_size: {choice: [100000]}}", "less than or equal to 65536"),
    ],
)
def test_what_people_write_instead_is_answered_with_the_way_to_write_it(text, sentence):
    assert sentence in refused(text)


@pytest.mark.parametrize(
    ("domain", "written"),
    [
        ("{loguniform: [0.001, 0.1]}", "{log_uniform: [0.001, 0.1]}"),
        ("{_type: loguniform, _value: [0.001, 0.1]}", "{log_uniform: [0.001, 0.1]}"),
        ("{min: 0.001, max: 0.1}", "{uniform: [0.001, 0.1]}"),
        ("{min: 0.001, max: 0.1, log: true}", "{log_uniform: [0.001, 0.1]}"),
        ("{distribution: log_uniform_values, min: 0.001, max: 0.1}", "{log_uniform: [0.001, 0.1]}"),
        ("{type: float, low: 0.001, high: 0.1, log: true}", "{log_uniform: [0.001, 0.1]}"),
        ("{values: [0.001, 0.1]}", "{choice: [0.001, 0.1]}"),
        ("{grid_search: [0.001, 0.1]}", "{choice: [0.001, 0.1]}"),
    ],
)
def test_the_words_of_other_tools_are_answered_with_ours(domain, written):
    sentence = refused(f"params: {{optim.lr: {domain}}}")
    assert f"did you mean {written}?" in sentence
    key, values = next(iter(yaml_value(written).items()))
    assert space.parse({"params": {"optim.lr": {key: values}}})


def test_a_range_of_whole_numbers_is_answered_as_one():
    assert "did you mean {int_uniform: [4, 64]}?" in refused("params: {adapter.hidden_dim: {min: 4, max: 64}}")


TWO_AT_ONCE = """
params:
  teacher: {choice: [none, glyph_small, glyph_base]}
  distill.loss: {choice: [kl, mse], unless: {teacher: none}}
  optim.lr:
    - {choice: [0.001], when: {%s}}
    - {choice: [0.002], %s: {%s}}
"""


@pytest.mark.parametrize(
    ("first", "word", "second"),
    [
        ("teacher: none", "when", "teacher: [none, glyph_small]"),
        ("teacher: none", "unless", "teacher: glyph_small"),
        ("teacher: glyph_small", "when", "distill.loss: kl"),
        ("distill.loss: [kl, mse]", "unless", "teacher: glyph_base"),
    ],
)
def test_two_domains_of_a_key_at_once_are_refused(first, word, second):
    assert "'optim.lr' has two domains at once where" in refused(TWO_AT_ONCE % (first, word, second))


@pytest.mark.parametrize(
    ("first", "word", "second"),
    [
        ("teacher: none", "unless", "teacher: none"),
        ("teacher: none", "when", "distill.loss: [kl, mse]"),  # the loss is there only beside a teacher
        ("distill.loss: kl", "when", "distill.loss: mse"),
    ],
)
def test_two_domains_of_a_key_that_exclude_each_other_are_taken(first, word, second):
    assert len(space.parse(yaml_value(TWO_AT_ONCE % (first, word, second))).params) == 4


@pytest.mark.parametrize(
    "conditions",
    [
        "unless: {teacher: [none, glyph_small, glyph_base]}",
        "when: {teacher: none, distill.loss: kl}",
        "when: {teacher: none}, unless: {teacher: none}",
        "when: {distill.loss: kl}, unless: {teacher: [glyph_small, glyph_base]}",
    ],
)
def test_a_key_that_would_never_be_searched_is_refused(conditions):
    text = f"""
    params:
      teacher: {{choice: [none, glyph_small, glyph_base]}}
      distill.loss: {{choice: [kl, mse], unless: {{teacher: none}}}}
      distill.temperature: {{uniform: [1, 9], {conditions}}}
    """
    assert "'distill.temperature' would never be searched" in refused(text)
    fixed = "{params: {optim.lr: {choice: [1], when: {teacher: none}}}, fixed: {teacher: vit_small}}"
    assert "'optim.lr' would never be searched: no point of this space has teacher=none" in refused(fixed)


def test_conditions_on_a_range_are_understood():
    wide = "params: {adapter.hidden_dim: {int_uniform: [4, 64]}, optim.lr: {choice: [1], %s: {adapter.hidden_dim: %s}}}"
    assert space.parse(yaml_value(wide % ("when", 8)))
    assert space.parse(yaml_value(wide % ("unless", "[4, 5]")))
    assert "unknown value of 'adapter.hidden_dim' in the condition of 'optim.lr': '99'; known: 4 to 64" in refused(
        wide % ("when", 99)
    )


def test_conditions_entangled_beyond_reason_are_refused_at_once():
    values = {"epochs": 40, "batch_size": 40, "adapter.hidden_dim": 40, "distill.stop_epoch": 40}
    params = {key: {"choice": list(range(1, count))} for key, count in values.items()}
    several = {key: list(range(1, count)) for key, count in values.items()}
    params["optim.lr"] = {"choice": [1], "when": several, "unless": {"distill.stop_epoch": list(range(1, 40))}}
    with pytest.raises(BadInput, match="never be searched|too entangled"):
        space.parse({"params": params})


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ("{optim.lr: 0.5}", "start point 1 lies outside the space: optim.lr is 0.5, not in 0.001 to 0.1"),
        ("{teacher: vit_small}", "teacher is vit_small, not in [none, glyph_small]"),
        ("{teacher: none, distill.loss: kl}", "its values cannot stand together"),
        ("{epochs: 5}", "sets epochs to 5, and `fixed` to 3"),
        ("{optim.rl: 0.5}", "unknown setting 'optim.rl'"),
        ("[0.5]", "`start` holds mappings"),
    ],
)
def test_a_start_point_outside_its_space_is_refused(point, sentence):
    text = f"""
    params:
      teacher: {{choice: [none, glyph_small]}}
      distill.loss: {{choice: [kl, mse], unless: {{teacher: none}}}}
      optim.lr: {{log_uniform: [0.001, 0.1]}}
    fixed: {{epochs: 3}}
    start: [{point}]
    """
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
    with pytest.raises(BadInput, match="unknown space 'IDAT'; did you mean 'idat'?"):
        space.load("IDAT")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(BadInput, match="it is a folder; name a file"):
        space.load(str(tmp_path / "folder.yaml"))
    with pytest.raises(BadInput, match="a space is a YAML file"):
        space.load(str(tmp_path))


def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("params:\n  optim.lr: {choice: [1]}\n  optim.lr: {choice: [2]}\n")
    with pytest.raises(BadInput, match="mine.yaml: 'optim.lr' stands twice, in lines 2 and 3; keep one"):
        space.load(str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("crlf.YAML", b"params:\r\n  optim.lr: {log_uniform: [1e-4, 1e-2]}\r\n"),
        ("bom.yml", b"\xef\xbb\xbfparams: {optim.lr: {log_uniform: [1e-4, 1e-2]}}"),
        ("utf16.yaml", "params: {optim.lr: {log_uniform: [1e-4, 1e-2]}}".encode("utf-16")),
        ("tabs.json", b'{\n\t"params": {\n\t\t"optim.lr": {"log_uniform": [1e-4, 1e-2]}\n\t}\n}'),
    ],
)
def test_a_space_is_read_as_editors_and_programs_write_it(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (param,) = space.load(str(tmp_path / name)).params
    assert param.domain == Range(1e-4, 1e-2, log=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_space_of_all_kinds_searches_of_each_what_it_uses_and_nothing_else(kind):
    """But how the paper's own adapters start, and dropout, which no space that comes along searches."""
    held = space.load("kinds").with_fixed({"adapter.kind": kind, "teacher": "glyph_small"})
    point = held.propose(draw(random.Random(0)))
    RunConfig.for_task("digits", point)
    searched = {key for key in point if key.startswith("adapter.")} - {"adapter.kind"}
    assert searched == set(KINDS[kind].uses) - {"adapter.init", "adapter.dropout"}


def test_the_space_of_all_kinds_has_all_kinds():
    (kinds,) = (param for param in space.load("kinds").params if param.key == "adapter.kind")
    assert kinds.domain.values == tuple(KINDS)
