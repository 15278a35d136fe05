"""What the shell completes: from names that are there, quickly, and never with an error."""

import json
import os
import subprocess
import sys

import pytest
from conftest import command


def completed(line, cwd, **environment):
    """What the shell is offered for the last word of a line."""
    words = f"idat-tune {line}"
    count = str(len(words.split(" ")) - 1)
    asked = {"_IDAT_TUNE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
    done = command(cwd=cwd, **asked, **environment)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with searches and a search space."""
    made = tmp_path_factory.mktemp("completing")
    for out, name in (("runs", "first"), ("runs", "second"), ("elsewhere", "third")):
        (made / out / name).mkdir(parents=True)
        (made / out / name / "journal.jsonl").touch()
    (made / "runs" / "no-search").mkdir()
    (made / "own_space.yaml").touch()
    return made


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("sear", ["search"]),
        ("search --ta", ["--task"]),
        ("search --task sm", ["smallnorb_azi", "smallnorb_ele"]),
        ("search --task na", ["natural"]),
        ("train --task na", []),
        ("search --space i", ["idat"]),
        ("search --space o", ["own_space.yaml"]),
        ("search --stopping m", ["median"]),
        ("search --name f", ["first"]),
        ("train --recipe mo", ["mona", "mosa"]),
        ("stop ", ["first", "second"]),
        ("track --out elsewhere ", ["third"]),
        ("describe --teacher n", ["none"]),
        ("data export pictures --split tr", ["train", "trainval"]),
    ],
)
def test_names_are_completed(line, offered, folder):
    assert completed(line, folder) == offered


def test_tasks_of_the_users_own_are_completed_and_damaged_ones_do_no_harm(tmp_path):
    from idat_tune import data

    data.export("digits", "train", tmp_path / "photos", 60)
    data.import_(tmp_path / "photos", ["mushrooms"], folder=tmp_path / "data")
    broken = tmp_path / "data" / "broken"
    broken.mkdir()
    (broken / "task.json").write_text("{")
    assert completed("train --task m", tmp_path, IDAT_TUNE_DATA=str(tmp_path / "data")) == ["mushrooms"]


def test_where_names_cannot_be_had_nothing_is_offered(tmp_path):
    assert completed("train --task d", tmp_path, IDAT_TUNE_DATA="~nobody-of-that-name") == []
    (tmp_path / "runs").touch()
    assert completed("stop ", tmp_path) == []


def test_a_name_is_completed_without_loading_anything_heavy(folder):
    program = (
        "import json, sys, types\n"
        "from idat_tune.cli import completing\n"
        "ctx = types.SimpleNamespace(params={})\n"
        "names = [getattr(completing, name)(ctx, '') for name in "
        "('tasks_and_groups', 'spaces', 'recipes', 'searches', 'teachers', 'samplers', 'rules', 'splits')]\n"
        "print(json.dumps([all(names), sorted({'torch', 'numpy', 'pyarrow', 'ray', 'mlflow', 'timm', 'optuna'} "
        "& set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, []]


def test_the_completion_that_is_installed_works_in_bash(tmp_path):
    program = tmp_path / "bin" / "idat-tune"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m idat_tune.cli "$@"\n')
    program.chmod(0o755)
    script = (
        "idat-tune --install-completion\n"
        "source ~/.bashrc\n"
        "COMP_WORDS=(idat-tune search --task dsp) COMP_CWORD=3\n"
        "$(complete -p idat-tune | grep -o '_idat[a-z_]*') idat-tune\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "dsprites_loc dsprites_ori"
