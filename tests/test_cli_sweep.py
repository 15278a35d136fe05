"""Command lines with something wrong in them, by the hundred: exit code 2, one sentence, nothing written."""

import contextlib
import io
import os
import re
import sys
import typing
from unittest import mock

import pytest
import typer.main
from conftest import command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from idat_tune import cli
from idat_tune.cli.commands import app
from idat_tune.config import RunConfig

BASE = {  # lines that are right, or all but right; of other commands the bare words
    "search": ["--task", "digits"],
    "train": ["--task", "digits"],
    "export": ["nothing", "--to", "new"],
    "predict": ["folder", "picture.png"],
    "describe": ["--task", "digits"],
    "tasks": [],
    "track": ["nothing"],
    "ui": ["--out", "folder"],
    "doctor": [],
    "bench": [],
    "data import": ["--from", "images", "--task", "mine"],
    "data verify": [],
    "data list": [],
    "data export": ["pictures", "--task", "digits", "--count", "2"],
}
JUNK = ["x", "", " ", "²", "1,5", "1 2", "[red]", "[/x]", "\x1b[31m", "a\nb", "nan?", "zz" * 300, "\udc80", "{}", "'"]
NO_WHOLE_NUMBERS = [*JUNK, "1.5", "nan", "1e3", "9" * 5000]
NO_PATHS = ["", " ", "a" * 300, "a/" * 3000, "~nobody-is-called-so/x", "loop"]
NO_FOLDERS = [*NO_PATHS, "file", "file/below", "picture.png"]
# Of options whose values are judged by what they mean. Words that may be right some day are not among them.
WRONG = {
    "--task": [*JUNK, "digts", "own", "none", "dtd"],
    "--space": [
        *JUNK,
        "idta",
        "folder",
        "folder.yaml",
        "none.yaml",
        "file",
        "broken.yaml",
        "picture.yaml",
        "twice.yaml",
    ],
    "--sampler": [*JUNK, "tpee"],
    "--stopping": [*JUNK, "halve"],
    "--name": ["", "a/b", "..", ".hidden", "a b", "a\nb", "x" * 300, "[red]", "-", "\udc80", "a\x00b"],
    "--trials": ["0", "-1", "9" * 30],
    "--seeds": ["0", "-1", "9" * 30],
    "--top-k": ["0", "-1", "9" * 30],
    "--folds": ["1", "-1", "9" * 30],
    "--seed": ["-1", "9" * 30, str(2**31)],
    "--epochs": ["0", "-1", "9" * 30],
    "--patience": ["0", "-1", "9" * 30],
    "--max-concurrent": ["0", "-1", "9" * 30],
    "--max-params": [*JUNK, "0", "-1", "inf", "nan", "k", "M", "1e999"],
    "--stacked": ["0", "-1", "17", "9" * 30],
    "--hours": ["0", "-1", "inf", "-inf", "nan", "1e999"],
    "--gpu-hours": ["0", "-1", "inf", "nan"],
    "--gpus-per-trial": ["0", "-1", "inf", "nan"],
    "--price-per-hour": ["0", "-1", "inf", "nan"],
    "--kind": [*JUNK, "prepraed", "tfds", "list"],
    "--train-images": ["0", "1", "-1", "9" * 30],
    "--skip-bad": ["-1"],
    "--classes": ["0", "1", "-1", "9" * 30],
    "--student": [*JUNK, "vit_bse", "none", "vit_nothing_patch16_224"],
    "--teacher": [*JUNK, "vit_bse", "vit_nothing_patch16_224"],
    "--top": ["0", "-1"],
    "--split": [*JUNK, "tset"],
    "--count": ["0", "-1"],
    "--port": ["0", "-1", "65536", "9" * 30],
    "--replays": ["0", "-1", "9" * 30],
    "--processes": ["0", "-1", "9" * 30],
    "--compare": [*JUNK, "sampler"],
    "--from": [*NO_PATHS, "none", "file", "folder", "broken.yaml"],
    "--table": [*NO_FOLDERS, "none.parquet", "folder"],
    "--data": NO_PATHS,
    "--weights": NO_PATHS,
}
OF_COMMAND = {
    ("describe", "--task"): [*JUNK, "digts", "own", "none"],  # which needs no images
    ("search", "--out"): NO_FOLDERS,
    ("train", "--out"): NO_FOLDERS,
    ("bench", "--trials"): ["0", "-1", "9" * 30],
}


def commands(group=None, prefix=""):
    """Every command by its words, as typer knows it."""
    group = group or typer.main.get_command(app)
    found = {}
    for name, known in group.commands.items():
        inner = getattr(known, "commands", None)
        found |= commands(known, f"{name} ") if inner else {prefix + name: known}
    return found


COMMANDS = commands()
WORDS = sorted({word for name in COMMANDS for word in name.split()})


def options_of(name):
    return [param for param in COMMANDS[name].params if param.param_type_name == "option" and param.name != "help"]


def spelling(param):
    return param.opts[0]


def wrong_values(name, param):
    """Values that an option of a command cannot take."""
    option = spelling(param)
    known = OF_COMMAND.get((name, option), WRONG.get(option, []))
    kind = str(typing.get_type_hints(COMMANDS[name].callback)[param.name])
    if "int" in kind:
        return [*known, *NO_WHOLE_NUMBERS]
    if "float" in kind:
        return [*known, *JUNK]
    return [*known, *NO_PATHS] if "Path" in kind else known


@st.composite
def misspelt(draw, words):
    """A word with a letter more, less or exchanged."""
    word = draw(st.sampled_from(words))
    place = draw(st.integers(min(2, len(word) - 1), len(word) - 1))
    letter = draw(st.sampled_from("abcz_-"))
    return draw(st.sampled_from([word[:place] + letter + word[place:], word[:place] + word[place + 1 :], word[:place]]))


@st.composite
def wrong_settings(draw):
    """What --set cannot take."""
    key = draw(st.sampled_from(RunConfig.all_keys()))
    value = RunConfig(task="digits").flat()[key]
    numbers = isinstance(value, int | float) and not isinstance(value, bool)
    bad = st.sampled_from([*JUNK, "null", "~", "[1]", "{a: 1}", "!!binary aGk=", "-1e", "2020-13-45", "[" * 3000, "*"])
    worse = st.sampled_from(["-1", ".inf", ".nan", "inf", "nan", "1e999", "true", "9" * 400, "9" * 5000])
    return draw(
        st.one_of(
            bad.map(lambda text: f"{key}={text}"),
            (worse if numbers else bad).map(lambda text: f"{key}={text}"),
            st.sampled_from(["", "=", "=3", key, f"{key}x=1", f" {key}.=1", "optim=1", "adapter.=x", "\udc80=1"]),
        )
    )


@st.composite
def wrong_lines(draw):
    """A command line with at least one thing in it that cannot be."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    line = list(BASE.get(name, []))
    options = options_of(name)
    taking = [param for param in options if not getattr(param, "is_flag", False)]
    judged = [param for param in taking if wrong_values(name, param)]
    known = {option for param in COMMANDS[name].params for option in param.opts}
    fault = draw(
        st.sampled_from(["value", "value", "value", "set", "unknown", "no value", "extra", "command", "empty"])
    )
    if fault == "value" and judged:
        param = draw(st.sampled_from(judged))
        wrong = draw(st.sampled_from(wrong_values(name, param)))
        as_one = wrong.startswith("-") or draw(st.booleans())
        line += [f"{spelling(param)}={wrong}"] if as_one else [spelling(param), wrong]
    elif fault == "set" and "--set" in known:
        line += ["--set", draw(wrong_settings())]
    elif fault == "empty" and taking:
        line += [draw(st.sampled_from([*map(spelling, taking)]))]
    elif fault == "extra" and name != "predict":
        line.insert(draw(st.integers(0, len(line) // 2)) * 2, draw(st.sampled_from([w for w in JUNK if w != "-"])))
    elif fault == "command":
        words = draw(misspelt(WORDS).filter(lambda word: word not in WORDS))
        return [*(["data"] if draw(st.booleans()) else []), words, *line]
    else:
        option = draw(
            misspelt([*map(spelling, options)]).filter(lambda word: word not in {*known, "-h", "--", "--help"})
        )
        line += [option, draw(st.sampled_from(["1", *JUNK]))]
    return [*name.split(), *line]


def ran(*_, **__):
    raise AssertionError("the command was carried out")


class Died(Exception):
    """A process was to be started."""


def no_process(*_, **__):
    raise Died


GUARDED = (
    "idat_tune.search.run_searches",
    "idat_tune.search.estimate_searches",
    "idat_tune.single.run",
    "idat_tune.cost._flops",
    "idat_tune.data.importing._store",
    "idat_tune.doctor.examine",
    "idat_tune.replay.compare.mapping",
    "subprocess.run",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with things to stumble over."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "folder").mkdir()
    (folder / "folder.yaml").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "file").write_text("nothing of use")
    (folder / "broken.yaml").write_text("params: [")
    (folder / "twice.yaml").write_text("params: {optim.lr: {choice: [1]}, optim.lr: {choice: [2]}}")
    Image.new("L", (8, 8)).save(folder / "picture.png")
    (folder / "picture.yaml").write_bytes((folder / "picture.png").read_bytes())
    for number in range(12):
        (folder / "images" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(folder / "images" / f"class{number % 2}" / f"{number}.png")
    return folder


def tree(folder):
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def answer(line, folder):
    """Exit code, stdout and stderr of a command line, carried out in this process in `folder`."""
    out, err = io.StringIO(), io.StringIO()
    environment = {"IDAT_TUNE_DATA": str(folder / "store"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(mock.patch.object(sys, "argv", ["idat-tune", *line]))
        for name in GUARDED:
            stack.enter_context(mock.patch(name, ran))
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        with pytest.raises(SystemExit) as left:
            cli.main()
    return left.value.code, out.getvalue(), err.getvalue()


INSIDE = re.compile(r"Traceback|\b[A-Z]\w*(Error|Exception)\b|<class|object at 0x|NoneType|\bpydantic\b")


def check(line, code, out, err):
    assert code == 2, (line, code, out, err)
    assert out == "", (line, out)
    sentences = err.strip().splitlines()
    assert len(sentences) == 1, (line, err)
    assert sentences[0].startswith("error: "), (line, err)
    assert sentences[0].isprintable(), (line, err)
    assert len(sentences[0]) < 2100, (line, err)
    assert not INSIDE.search(err), (line, err)


@settings(
    max_examples=600,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(line=wrong_lines())
@example(line=["search", "--task", "own"])
@example(line=["search", "--task", "digits", "--set", "epochs=3", "--set", "epochs=4"])
@example(line=["train", "--task", "digits", "--set", "protocol=paper", "--set", "protocol=clean"])
@example(line=["search", "--task", "digits", "--price-per-hour", "1"])
@example(line=["search", "--task", "digits", "--set", "seed=3"])
@example(line=["search", "--task", "digits", "--epochs", "3", "--set", "epochs=4"])
@example(line=["describe", "--student", "vit_base", "--set", "student=vit_large"])
@example(line=["train", "--task", "digits", "--set", "task=sprites_loc"])
@example(line=["describe", "--student", "random:random:vit_base"])
def test_a_line_that_cannot_be_is_answered_in_one_sentence(place, line):
    before = tree(place)
    check(line, *answer(line, place))
    assert tree(place) == before, line


@pytest.mark.parametrize(
    "arguments",
    [["search", "--task", "digits", "--space", "twice.yaml"], ["predict", "folder", "picture.png"], ["serach"]],
)
def test_a_process_of_its_own_answers_so_too(place, arguments):
    before = tree(place)
    done = command(*arguments, cwd=place)
    check(arguments, done.returncode, done.stdout, done.stderr)
    assert tree(place) == before
