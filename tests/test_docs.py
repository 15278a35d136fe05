"""README.md and docs/: their commands, links and promises are the program's."""

import ast
import json
import os
import re
import shlex
import struct
import subprocess
import sys

import docs_check
import documentation
import pytest
import reference
import yaml
from conftest import command

BLOCKS = [block for page in documentation.pages() for block in documentation.blocks(page)]
COMMANDS = [
    pytest.param(words, id=f"{block.place} {shlex.join(words[:2])}")
    for block in BLOCKS
    if block.language == "bash"
    for words in documentation.commands(block)
]
KNOWN_LANGUAGES = {"bash", "console", "python", "yaml", "json", "text"}  # `console` is what is typed, in docs/cli.md
PAGES = [pytest.param(page, id=page.name) for page in documentation.pages()]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    """What options do while they are read, as --weights and --install-completion, they do for one test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IDAT_TUNE_WEIGHTS", "")  # so that it is put back
    monkeypatch.delenv("IDAT_TUNE_WEIGHTS")


def test_the_readme_has_at_most_150_lines_and_leads_to_every_page():
    assert len(documentation.README.read_text().splitlines()) <= 150
    named = set(documentation.LINK.findall(documentation.README.read_text()))
    assert {f"docs/{page.name}" for page in documentation.pages()[1:]} <= named


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_with_what_it_answers(page):
    title, empty, first = page.read_text().splitlines()[:3]
    assert title.startswith("# ")
    assert empty == ""
    assert first[:1].isalpha() or first.startswith("!["), first


def test_the_page_of_all_commands_is_what_the_program_says_today():
    assert reference.PAGE.read_text() == reference.page(), "`make docs` writes docs/cli.md anew"


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_of_a_block_parses(words):
    documentation.parsed(words)


def test_what_does_not_parse_is_found():
    for words in (["serch"], ["data", "exprt"], ["train", "--tsk", "x"], ["data", "export", "x"], ["stop", "a", "b"]):
        with pytest.raises(Exception, match=r"No such|Missing|unexpected"):
            documentation.parsed(words)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_in_the_text_of_a_page_exists(page):
    for words in documentation.mentions(page):
        known = documentation.options_of(words)
        assert words[0].startswith("-") or words[0] in documentation.program().commands, words
        for word in words:
            assert not word.startswith("--") or word.split("=")[0] in {*known, "--help"}, f"{words}: no option {word}"


def test_every_block_says_what_it_is_and_what_it_needs():
    for block in BLOCKS:
        assert block.language in KNOWN_LANGUAGES, block.place
        assert block.info == block.language or block.needs, f"{block.place}: ```{block.info}"


def test_blocks_of_python_and_yaml_can_be_read():
    for block in BLOCKS:
        if block.language == "python":
            ast.parse(block.text)
        if block.language == "yaml":
            assert yaml.safe_load(block.text), block.place


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(page):
    for link in documentation.LINK.findall(documentation.prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), link
        if anchor:
            assert anchor in documentation.anchors(there), f"{link}: headings are {documentation.anchors(there)}"


@pytest.mark.parametrize("page", PAGES)
def test_the_headings_of_a_page_differ(page):
    assert len(set(documentation.anchors(page))) == len(documentation.anchors(page))


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_of_a_page_exists(page):
    makefile = (documentation.ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^|&& )make ([\w-]+)", page.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.slow
def test_the_first_commands_and_the_python_of_the_readme_run_as_pasted(tmp_path):
    first, use = (block for block in documentation.blocks(documentation.README) if "my-student" in block.text)
    wanted = (["train"], ["data", "export"], ["predict"])
    for words in documentation.commands(first):
        if any(words[: len(start)] == start for start in wanted):
            done = command(*words, cwd=tmp_path)
            assert done.returncode == 0, f"{words}: {done.stderr}"
    answer, *epochs = python(use.text, tmp_path)
    assert answer.startswith("[('")
    assert [line.split()[0] for line in epochs] == ["0", "1", "2"]


# The example itself was run with wandb 0.31, offline.
WANDB = """
import json

class Run:
    def __init__(self, **about):
        self.summary = {}
        self.said = {**about, "logged": []}
    def log(self, values, step):
        self.said["logged"].append([step, values])
    def finish(self, exit_code):
        with open("wandb.jsonl", "a") as file:
            file.write(json.dumps({**self.said, "summary": self.summary, "exit_code": exit_code}) + "\\n")

init = Run
"""


@pytest.mark.slow
@pytest.mark.parametrize("board", ["tensorboardX", "torch.utils.tensorboard"])
def test_the_callbacks_of_the_docs_follow_a_search_all_at_once(tmp_path, board):
    if board == "torch.utils.tensorboard":
        pytest.importorskip("tensorboard")
    shown = [block.text for block in BLOCKS if "(Callback):" in block.text]
    assert len(shown) == 3
    program = re.sub(r"^search\(.*callbacks=\[(.*)\]\)$", r"followers.append(\1)", "\n".join(shown), flags=re.MULTILINE)
    assert program.count("followers.append") == 3
    program = f"followers = []\n{program.replace('tensorboardX', board)}\n" + (
        "search('digits', trials=3, fixed={'epochs': 2}, folds=0, seeds=1, name='x', callbacks=followers)"
    )
    (tmp_path / "wandb.py").write_text(WANDB)
    said = python(program, tmp_path)
    assert {"arm-default complete", "test complete"} <= {" ".join(line.split()[:2]) for line in said}
    assert [step for step, _ in scalars(tmp_path / "curves" / "arm-default", "val/accuracy")] == [0, 1]
    runs = {run["name"]: run for run in map(json.loads, (tmp_path / "wandb.jsonl").read_text().splitlines())}
    default = runs["arm-default"]
    assert (default["project"], default["group"], default["job_type"]) == ("idat-tune-digits", "x", "explore")
    assert default["config"]["task"] == "digits"
    assert [step for step, _ in default["logged"]] == [0, 1]
    assert (default["summary"], default["exit_code"]) == ({"status": "complete"}, 0)
    curve = [values["val/accuracy"] for _, values in default["logged"]]
    assert [value for _, value in scalars(tmp_path / "curves" / "arm-default", "val/accuracy")] == pytest.approx(curve)
    assert not [line for line in (tmp_path / "runs" / "x" / "log.txt").read_text().splitlines() if "Callback" in line]


def scalars(folder, name):
    """(step, value) of what TensorBoard would draw: records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        found += [(event.step, value.simple_value) for value in event.summary.value if value.tag == name]
    return found


def python(block, folder):
    """The lines that a program prints there."""
    run = [sys.executable, "-W", "error:::idat_tune", "-c", block]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_docs_check_runs_blocks_in_order_in_one_folder_and_tells_which_fail(tmp_path):
    def block(info, text):
        return documentation.Block(documentation.README, 1, info, text)

    shown = [
        block("bash", "echo 1 > left\nidat-tune --version"),
        block("python", "print(open('left').read())"),
        block("bash needs a cluster", "ray up"),
        block("bash", "false\ntrue"),
    ]
    said = []
    failed = docs_check.check(shown, tmp_path, said.append)
    assert [line.split()[0] for line in said[:4]] == ["ran", "ran", "left", "FAILED"]
    assert failed == ["README.md:1"]
