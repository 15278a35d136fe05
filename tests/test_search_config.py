"""SearchConfig: a search as one value, from files, from options, and back."""

import json
import pickle

import pytest
import yaml
from conftest import command

import idat_tune
from idat_tune import space as spaces
from idat_tune.errors import BadInput
from idat_tune.search import SearchConfig, plan_search
from idat_tune.search.config import FILE, read, write


def test_it_is_a_value_and_flat_and_from_flat_are_inverse():
    config = SearchConfig.of("dtd", trials=64, folds=3, fixed={"epochs": 20}, max_concurrent=2)
    assert SearchConfig.from_flat(config.flat()) == config == pickle.loads(pickle.dumps(config))
    assert config.flat()["explore.trials"] == config.explore.trials == 64
    assert set(config.flat()) == set(SearchConfig.all_keys())
    assert idat_tune.SearchConfig is SearchConfig


def test_every_option_is_known_by_the_last_word_of_its_key_which_no_other_has():
    words = [key.rpartition(".")[2] for key in SearchConfig.all_keys()]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"trails": 3}, "unknown option of a search 'trails'; did you mean 'trials'?"),
        ({"trials": -1}, "--trials cannot be -1: a search needs at least 0"),
        ({"trials": "many"}, "explore.trials cannot be 'many': should be a valid integer"),
        ({"trials": True}, "explore.trials cannot be true: it is not a switch"),
        ({"seeds": 10**6}, "--seeds cannot be 1000000: a search takes at most 100,000"),
        ({"folds": 1}, "--folds cannot be 1: noise shows from 2 on"),
        ({"hours": -1}, "--hours cannot be -1.0: it must be greater than 0"),
        ({"sampler": "tpee"}, "unknown --sampler 'tpee'; did you mean 'tpe'?"),
        ({"stopping": 3}, "unknown --stopping '3'"),
        ({"seed": -1}, "--seed cannot be -1: it goes from 0 to"),
        ({"out": None}, "out has no value"),
        ({"name": "a/b"}, "--name cannot be 'a/b'"),
        ({"fixed": {"epochs": 0}}, "epochs cannot be 0"),
        ({"fixed": {"epoch": 3}}, "unknown setting 'epoch'; did you mean 'epochs'?"),
        ({"space": {"parms": {}}}, "a space is a mapping with a `params` mapping"),
        ({"space": 3}, "space cannot be 3"),
        ({"hints": {"mine": {"optim.lr": "fast"}}}, "optim.lr cannot be 'fast'"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(tmp_path, options, sentence):
    with pytest.raises(BadInput) as caught:
        plan_search(SearchConfig.of("digits", **{"out": tmp_path / "runs", **options}))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_have_dotted_keys_or_sections(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("task: dtd\nexplore: {trials: 8, sampler: random}\nconfirm.folds: 3\nfixed: {epochs: 20}\n")
    wanted = {"task": "dtd", "explore.trials": 8, "explore.sampler": "random", "confirm.folds": 3}
    assert read(path) == {**wanted, "fixed": {"epochs": 20}}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[1, 2]", "it holds a mapping of key to value"),
        ("explore: {trails: 8}", "unknown setting 'explore.trails'; did you mean 'explore.trials'?"),
        ("explore: 8", "unknown setting 'explore'; did you mean"),
        ("explore.trials: 8\nexplore: {trials: 9}", "explore.trials is given twice; keep one of 8 and 9"),
        ("a: [", "is not"),
    ],
)
def test_a_faulty_file_is_refused_by_name(tmp_path, content, sentence):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(BadInput) as caught:
        read(path)
    assert str(caught.value).startswith(f"search file {path}: ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", spaces.named())
def test_every_space_is_the_same_after_it_was_written_and_read(name):
    space = spaces.load(name)
    assert spaces.parse(yaml.safe_load(yaml.safe_dump(space.written(), sort_keys=False))) == space


def test_what_is_written_plans_the_same_trials(tmp_path):
    asked = SearchConfig.of(
        "digits", trials=20, seed=3, fixed={"epochs": 4}, out=tmp_path, name="one", reopen_test=True
    )
    plan = plan_search(asked).hinted({"from-dtd": {"optim.lr": 0.011}})
    write(tmp_path / FILE, plan.as_config())
    again = plan_search(SearchConfig.from_flat({**read(tmp_path / FILE), "out": tmp_path, "name": "two"}))
    assert again.first_jobs() == plan.first_jobs()
    assert {job.id for job in plan.first_jobs()} >= {"from-dtd", "portfolio-0"}
    assert again.identity() == plan.identity()
    assert (again.name, again.config.final.reopen_test) == ("two", False)


def test_no_hints_stay_none(tmp_path):
    write(tmp_path / FILE, SearchConfig.of("digits", hints={}))
    assert read(tmp_path / FILE)["hints"] == {}


@pytest.mark.slow
def test_a_search_can_be_done_again_from_its_own_file(searched, tmp_path):
    result, out, _ = searched
    file = out / "first" / FILE
    done = command("search", "--config", file, "--out", tmp_path, "--set", "epochs=3", "--json", timeout=1500)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert (again["task"], again["trials"]["complete"] + again["trials"]["stopped"]) == ("digits", 6)
    assert again["arms"]["default"]["val_accuracy"] == result["arms"]["default"]["val_accuracy"]
    assert again["arms"]["default"]["test_accuracy"] == result["arms"]["default"]["test_accuracy"]
    # Under its own name it is the search that is there, finished.
    done = command("search", "--config", file, "--out", out, "--name", "first", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["winner"] == result["winner"]


def test_options_of_the_command_line_override_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("task: digits\nexplore.trials: 8\nspace: idatt\n")
    done = command("search", "--config", path, "--space", "embedd", "--out", tmp_path / "runs")
    assert (done.returncode, "unknown space 'embedd'" in done.stderr) == (2, True)
    done = command("search", "--config", path, "--trials", -1, "--out", tmp_path / "runs")
    assert (done.returncode, "--trials cannot be -1" in done.stderr) == (2, True)
    done = command("search", "--config", tmp_path / "none.yaml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    for fixed, way_out in (("3", "is a mapping"), ("", "--trials cannot be -1")):
        path.write_text(f"task: digits\nexplore.trials: -1\nfixed: {fixed}\n")
        done = command("search", "--config", path)
        assert (done.returncode, way_out in done.stderr, done.stderr.count("\n")) == (2, True, 1)
    done = command("search", "--trials", 3)
    assert (done.returncode, "give --task" in done.stderr) == (2, True)
