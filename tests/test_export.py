"""A student as a folder: what goes in comes out, and what is damaged is refused."""

import json
from unittest import mock

import pytest
import torch
from conftest import glyphs, noise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

import idat_tune
from idat_tune import data, export, run, tasks
from idat_tune.errors import BadInput
from idat_tune.model import build
from idat_tune.run import evaluate, to_device


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder that tests may spoil for a moment."""
    config = glyphs(adapter__kind="parallel")
    folder = tmp_path_factory.mktemp("exports") / "best"
    student = build(config.student, config.classes, config, seed=0)
    export.save(folder, config, student.trained_state(), {"test_accuracy": 0.5})
    return folder


@pytest.fixture
def exported(tmp_path):
    training = run.run(glyphs(adapter__kind="parallel"), noise())
    list(training)
    folder = tmp_path / "best"
    export.save(folder, training.config, training.student.trained_state(), {"test_accuracy": 0.5})
    return folder, training


def test_a_loaded_student_gives_the_very_logits_that_it_gave(exported):
    folder, training = exported
    student = idat_tune.load(folder)
    pixels, _ = to_device(noise(30, seed=9), torch.device("cpu"))
    training.student.eval()
    assert not student.training
    assert torch.equal(student(pixels), training.student(pixels))


def test_the_folder_holds_plain_files_and_only_what_was_trained(exported):
    folder, training = exported
    assert {path.name for path in folder.iterdir()} == set(export.FILES)
    assert set(load_file(folder / "adapter.safetensors")) == set(training.student.trainable())
    assert json.loads((folder / "labels.json").read_text()) == [str(digit) for digit in range(10)]
    assert "idat_tune.load" in (folder / "README.md").read_text()
    student = idat_tune.load(folder)
    assert (student.config, student.metrics) == (training.config, {"test_accuracy": 0.5})


def test_the_transform_makes_of_an_image_what_training_saw(exported):
    folder, training = exported
    student = idat_tune.load(folder)
    images = data.load("digits", "val", 32, 1)
    picture = Image.fromarray(images.pixels[0, 0])
    assert torch.equal(student.transform(picture), torch.from_numpy(images.pixels[0].copy()))
    label, probability = student.predict([picture])[0]
    assert label in student.labels
    assert 0.1 <= probability <= 1
    pairs = [to_device(images, torch.device("cpu"))]
    assert evaluate(student, pairs, training.config) == evaluate(training.student, pairs, training.config)


@pytest.mark.parametrize("merge", [False, True])
def test_a_pair_gives_the_mean_of_both_softmaxes(tmp_path, merge):
    training = run.run(glyphs(adapter__kind="lora"), noise())
    list(training)
    states = [model.trained_state() for model in (training.student, training.teacher)]
    export.save(tmp_path / "pair", training.config, states[0], {}, teacher=states[1])
    assert {path.name for path in (tmp_path / "pair").iterdir()} == {*export.FILES, export.TEACHER}
    assert "With its teacher" in (tmp_path / "pair" / "README.md").read_text()
    pair = idat_tune.load(tmp_path / "pair", merge=merge)
    pixels, _ = to_device(noise(30, seed=9), torch.device("cpu"))
    with torch.no_grad():
        both = [model.eval()(pixels).double().softmax(dim=-1) for model in (training.student, training.teacher)]
        assert torch.allclose(pair(pixels).double().softmax(dim=-1), sum(both) / 2, atol=1e-5)
    label, probability = pair.predict([Image.new("L", (32, 32), 200)])[0]
    assert label in pair.labels
    assert 0 < probability <= 1


@pytest.mark.parametrize("damage", ["cut", "of the student"])
def test_the_teacher_of_a_pair_is_looked_at_as_closely(tmp_path, damage):
    training = run.run(glyphs(), noise())
    states = [model.trained_state() for model in (training.student, training.teacher)]
    export.save(tmp_path / "pair", training.config, states[0], {}, teacher=states[1])
    path = tmp_path / "pair" / export.TEACHER
    path.write_bytes(path.read_bytes()[:50]) if damage == "cut" else save_file(states[0], path)
    with pytest.raises(BadInput, match=r"teacher.safetensors is damaged: .*; export it again"):
        idat_tune.load(tmp_path / "pair")


def test_writing_again_replaces_the_folder_as_a_whole(exported):
    folder, training = exported
    (folder / "stray").write_text("")
    export.save(folder, training.config, training.student.trained_state(), {})
    assert {path.name for path in folder.iterdir()} == set(export.FILES)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_that_holds_something_else_is_never_replaced(exported, tmp_path):
    _, training = exported
    mine = tmp_path / "mine"
    mine.mkdir()
    export.check_replaceable(mine)
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="holds something else than an export"):
        export.save(mine, training.config, training.student.trained_state(), {})
    with pytest.raises(BadInput, match="is a file"):
        export.check_replaceable(mine / "thesis.tex")
    assert (mine / "thesis.tex").read_text() == "years of work"
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def refused(folder):
    with pytest.raises(BadInput) as caught:
        idat_tune.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["config.yaml", "adapter.safetensors", "metrics.json", "labels.json"])
def test_a_folder_that_lacks_a_file_is_refused(exported, name):
    folder, _ = exported
    (folder / name).unlink()
    assert f"is incomplete: {name} is missing" in refused(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert "no export folder at" in refused(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.yaml", "student: [", "config.yaml cannot be read"),
        ("config.yaml", "just text", "config.yaml cannot be read"),
        ("config.yaml", "task: digits\nadapter.kin: parallel", "unknown setting 'adapter.kin'"),
        ("labels.json", "{}", "must hold a list of class names"),
        ("labels.json", "[", "labels.json cannot be read"),
        ("labels.json", '["a", ["b"]]', "must hold a list of class names"),
        ("labels.json", '["a"]', "two or more"),
        ("config.yaml", "task: digits\ntask: dtd", "'task' stands twice, in lines 1 and 2"),
        ("config.yaml", "3", "must hold a mapping of settings"),
        ("config.yaml", "task: digits\nadapter.kind: [a]", "adapter.kind cannot be ['a']"),
        ("config.yaml", "task: digits\nadapter.hidden_dim: 99999999", "adapter.hidden_dim cannot be 99999999"),
        ("config.yaml", "[" * 5000, "nested more than 40 deep"),
        ("metrics.json", '{"a": 1, "a": 2}', "'a' stands there twice"),
        ("metrics.json", "nope", "metrics.json cannot be read"),
        ("metrics.json", "[1]", "must hold a mapping of names to values"),
        ("adapter.safetensors", "nope", "adapter.safetensors is damaged"),
    ],
)
def test_a_damaged_file_is_named(exported, name, content, sentence):
    folder, _ = exported
    (folder / name).write_text(content)
    assert sentence in refused(folder)


SWEEP = settings(max_examples=150, derandomize=True, deadline=None, database=None, suppress_health_check=[*HealthCheck])


@SWEEP
@given(data=st.data())
def test_a_folder_with_any_byte_changed_loads_or_is_refused_in_a_sentence(whole, data):
    name = data.draw(st.sampled_from([name for name in export.FILES if name != "README.md"]))
    sound = (whole / name).read_bytes()
    # In a file of tensors almost all is numbers; the faults are in its head.
    first = data.draw(st.integers(0, min(len(sound) - 1, 900)))
    last = min(len(sound), first + data.draw(st.sampled_from([0, 1, 1, 2, 8, 10**6])))
    put = data.draw(st.sampled_from([b"", b"0", b"-", b"9", b"[", b"{", b'"', b"\xff", b"\x00", b": ", b"\n", b"null"]))
    try:
        (whole / name).write_bytes(sound[:first] + put + sound[last:])
        # A changed name of the task is taken for one of the user's own.
        with mock.patch.dict(tasks.TASKS), mock.patch.dict(tasks._BY_KEY):
            assert idat_tune.load(whole).labels
    except BadInput as failure:
        check(str(failure))
    finally:
        (whole / name).write_bytes(sound)


def check(sentence):
    assert sentence.isprintable(), sentence
    assert len(sentence) < 1000, sentence


def test_tensors_that_do_not_fit_are_named(exported):
    folder, _ = exported
    path = folder / "adapter.safetensors"
    state = load_file(path)
    save_file({**state, "head.weight": torch.zeros(11, 48)}, path)
    assert "tensor 'head.weight' has shape (11, 48), but this student wants (10, 48)" in refused(folder)
    save_file({name: value for name, value in state.items() if name != "head.bias"}, path)
    assert "tensor 'head.bias' is missing" in refused(folder)
    save_file({**state, "extra": torch.zeros(1)}, path)
    assert "tensor 'extra' does not belong to this student" in refused(folder)
