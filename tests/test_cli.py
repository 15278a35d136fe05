"""The command line: bad input in one sentence with exit code 2, JSON alone on stdout, fast help."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import vtab
from conftest import command
from PIL import Image

from idat_tune import data


def refused(*arguments, cwd=None, **environment):
    """The one line on stderr of a command that must refuse its input."""
    done = command(*arguments, cwd=cwd, **environment)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task", "digts"], "unknown task 'digts'; did you mean 'digits'?"),
        (
            ["--task", "digits", "--set", "student=glyph_bse"],
            "unknown backbone 'glyph_bse'; did you mean 'glyph_base'?",
        ),
        (
            ["--task", "digits", "--set", "adapter.kind=serial"],
            "unknown adapter.kind 'serial'; did you mean 'sequential'?",
        ),
        (["--task", "digits", "--set", "distill.loss=klx"], "unknown distill.loss 'klx'; did you mean 'kl'?"),
        (["--task", "digits", "--set", "optm.lr=1"], "unknown setting 'optm.lr'; did you mean 'optim.lr'?"),
        (["--task", "digits", "--set", "optim.lr=-1"], "optim.lr cannot be -1"),
        (["--task", "digits", "--set", "optim.lr"], "write it as key=value"),
        (["--task", "digits", "--set", "task=dtd"], "the task is chosen with --task"),
        (["--task", "digits", "--trials", "-1"], "--trials cannot be -1"),
        (["--task", "digits", "--epochs", "0"], "epochs cannot be 0"),
        (["--task", "digits", "--hours", "0"], "--hours cannot be 0"),
        (["--task", "digits", "--max-concurrent", "0"], "--max-concurrent cannot be 0"),
        (["--task", "digits", "--space", "idta"], "unknown space 'idta'; did you mean 'idat'?"),
        (["--task", "digits", "--space", "nowhere.yaml"], "space file nowhere.yaml cannot be read"),
        (["--task", "digits", "--name", "a/b"], "--name cannot be 'a/b'"),
    ],
)
def test_a_search_that_cannot_work_is_refused_before_anything_is_written(tmp_path, arguments, sentence):
    assert sentence in refused("search", *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_faulty_space_file_is_refused_before_anything_is_written(tmp_path):
    space = tmp_path / "mine.yaml"
    for text, sentence in (
        ("params: [", "not valid YAML"),
        ("params: {lr: {choice: [1]}}", "unknown setting 'lr'"),
        (
            "params: {optim.lr: {choice: [1], when: {teacher: none}}}",
            "depends on 'teacher', which this space does not set",
        ),
    ):
        space.write_text(text)
        assert sentence in refused("search", "--task", "digits", "--space", space, cwd=tmp_path)
        assert list(tmp_path.iterdir()) == [space]


def test_an_out_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("search", "--task", "digits", "--out", tmp_path / "file" / "runs")


def test_a_vtab_task_without_data_names_the_folder_and_the_import_within_two_seconds(tmp_path):
    for name in ("search", "train"):
        began = time.monotonic()
        line = refused(name, "--task", "dtd", cwd=tmp_path, IDAT_TUNE_DATA=str(tmp_path / "data"))
        assert time.monotonic() - began < 2
        assert str(tmp_path / "data") in line
        assert "idat-tune data import" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [[], ["search"], ["train"], ["describe"], ["data", "import"]])
def test_help_of_anything_loads_nothing_heavy(name):
    script = f"import sys; sys.argv = ['idat-tune', *{name!r}, '--help']\nfrom idat_tune.cli import main\n"
    script += "try: main()\nfinally: print('LOADED', *{n.partition('.')[0] for n in sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert not set(done.stderr.split()) & {"torch", "ray", "mlflow", "optuna", "timm", "pyarrow", "numpy"}


@pytest.mark.parametrize(
    ("way", "code", "said"),
    [
        ("| true", 0, ""),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "error: stdout takes nothing more: No space left on device\n"),
    ],
)
@pytest.mark.parametrize("arguments", ["tasks", "tasks --json", "--help"])
def test_a_stdout_that_takes_nothing_ends_quietly_or_in_a_sentence(arguments, way, code, said):
    program = f"{sys.executable} -m idat_tune.cli {arguments} {way}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_wrong_option_is_a_usage_error():
    assert command("search", "--tsk", "digits").returncode == 2
    assert "no such command 'serach'" in refused("serach")
    assert refused("train").endswith(" train --help")
    assert refused("search").endswith("give --task, and `idat-tune tasks` lists them")


def test_tasks_lists_all_as_a_table_and_as_json():
    listed = json.loads(command("tasks", "--json").stdout)
    assert len(listed) == 22
    assert {"name", "group", "classes", "test", "lr"} <= set(listed[0])
    assert "oxford_iiit_pet" in command("tasks").stdout


def test_describe_counts_what_the_paper_counts():
    found = json.loads(command("describe", "--set", "adapter.kind=parallel", "--json").stdout)
    assert found["student"]["trainable_params"] == 159_892
    assert found["teacher"]["adapter_params"] == 41_520
    assert found["trainable_params"] == 239_912
    assert found["gflop_per_image"]["forward"] == pytest.approx(44.4, abs=0.1)
    assert found["memory_gb"] > 1
    alone = json.loads(command("describe", "--task", "digits", "--teacher", "none", "--json").stdout)
    assert alone["teacher"] is None
    shown = command("describe", "--task", "digits").stdout
    assert "glyph_base" in shown
    assert "GFLOP per image" in shown
    assert "--classes cannot be 1" in refused("describe", "--classes", "1")


def test_train_measures_on_val_and_exports_what_predict_uses(tmp_path):
    out = tmp_path / "mine"
    done = command("train", "--task", "digits", "--set", "epochs=3", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    wanted = {"config", "val_accuracy", "teacher_val_accuracy", "test_accuracy", "trainable_params", "seconds", "out"}
    assert set(result) >= wanted
    assert result["test_accuracy"] is None
    assert result["val_accuracy"] > 0.8
    assert done.stderr.count("epoch ") == 3
    images = data.load("digits", "val", 32, 1)
    picture = tmp_path / "digit.png"
    Image.fromarray(images.pixels[0, 0]).save(picture)
    answer = json.loads(command("predict", out, picture, "--json").stdout)[0]
    assert answer["image"] == str(picture)
    assert answer["label"] in "0123456789"
    assert "cannot be read" in refused("predict", out, tmp_path / "nothing.png")
    (out / "adapter.safetensors").unlink()
    assert "adapter.safetensors is missing" in refused("predict", out, picture)


def test_train_with_test_opens_the_test_split_and_says_so():
    result = json.loads(command("train", "--task", "digits", "--set", "epochs=2", "--test", "--json").stdout)
    assert result["test_accuracy"] > 0.5
    assert result["val_accuracy"] is None


def test_train_into_a_folder_that_cannot_be_is_refused_before_training(tmp_path):
    assert "does not exist" in refused("train", "--task", "digits", "--out", tmp_path / "no" / "where")


def test_doctor_finds_what_is_there_and_gives_remedies(tmp_path):
    done = command("doctor", "--out", tmp_path, "--json", IDAT_TUNE_DATA=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert all(found[name]["ok"] for name in ("Python", "torch", "ray", "mlflow", "MLflow store", "embedded backbones"))
    assert not found["VTAB-1K tasks"]["ok"]
    assert "idat-tune data import" in found["VTAB-1K tasks"]["remedy"]
    assert all(finding["remedy"] for finding in found.values() if not finding["ok"])


def test_ui_without_a_store_says_what_to_do(tmp_path):
    assert "run a search first" in refused("ui", "--out", tmp_path)


@pytest.mark.slow
def test_the_ui_command_that_a_search_prints_works(searched):
    _, out, _ = searched
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [sys.executable, "-m", "idat_tune.cli", "ui", "--out", str(out), "--port", str(port)]
    server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(480):  # its libraries alone may take a minute on a machine that does much else
            time.sleep(0.5)
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except OSError:
                assert server.poll() is None
        assert b"MLflow" in page
        body = json.dumps({"max_results": 10}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search", body)
        request.add_header("Content-Type", "application/json")
        names = {found["name"] for found in json.load(urllib.request.urlopen(request, timeout=60))["experiments"]}
        assert "idat-tune/digits" in names
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


@pytest.mark.slow
def test_on_a_terminal_progress_is_live_and_the_result_is_a_table(tmp_path):
    arguments = ["search", "--task", "digits", "--trials", "3", "--epochs", "2", "--seeds", "1", "--out", str(tmp_path)]
    script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    words = [sys.executable, "-c", script, sys.executable, "-m", "idat_tune.cli", *arguments]
    done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, timeout=200)
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0, text
    assert "of 3 trials" in text
    assert "best so far: val" in text
    assert "epoch 1/2" in text or "epoch 2/2" in text
    assert "winner" in text
    assert "ui --out" in text
    assert "digits-1" in text
    for noise in ("INFO", "ray::", "WARNING", "alembic"):
        assert noise not in text


def test_the_command_that_resumes_is_the_same_with_the_name_of_the_search(monkeypatch):
    from idat_tune.cli.runs import command_again

    argv = [
        "idat-tune",
        "search",
        "--task",
        "dtd",
        "--name=old",
        "--set",
        "optim.lr=1e-3",
        "--out",
        "a b",
        "--name",
        "x",
    ]
    monkeypatch.setattr(sys, "argv", argv)
    words = command_again("dtd-1").split(" ", 1)[1]
    assert words == "search --task dtd --set optim.lr=1e-3 --out 'a b' --name dtd-1"


def test_a_command_that_is_printed_can_be_pasted(monkeypatch):
    from idat_tune.cli.shared import printed, program

    assert shlex.split(printed("ui", "--out", Path("my runs/of 'may'"))) == ["ui", "--out", "my runs/of 'may'"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["/opt/my tools/idat-tune"])
    assert shlex.split(program()) == ["/opt/my tools/idat-tune"]
    monkeypatch.setattr(sys, "argv", ["/opt/x/__main__.py"])
    assert shlex.split(program()) == [sys.executable, "-m", "idat_tune.cli"]


def test_a_search_whose_weights_cannot_be_had_is_refused_before_anything_is_written(tmp_path):
    copies = vtab.make(tmp_path / "copies", ["kitti"], sizes={**vtab.SEARCHABLE, "val": 25})
    store = {"IDAT_TUNE_DATA": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    assert command("data", "import", "--from", copies, "--any-size", **store).returncode == 0
    line = refused("search", "--task", "kitti", "--out", tmp_path / "runs", **store)
    assert "the weights of vit_base_patch16_224.augreg_in21k are not here" in line
    assert "--weights" in line
    assert not (tmp_path / "runs").exists()


def test_the_run_of_an_export_can_be_done_again_to_the_byte(searched, tmp_path):
    _, out, _ = searched
    best, again = out / "first" / "best", tmp_path / "again"
    done = command("train", "--config", best / "config.yaml", "--test", "--out", again, "--quiet")
    assert done.returncode == 0, done.stderr
    for name in ("config.yaml", "adapter.safetensors"):
        assert (again / name).read_bytes() == (best / name).read_bytes()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "config file .*run.yaml: it has no settings of a run"),
        ("- 1", "it has no settings of a run"),
        ("task: [digits", "config file .*run.yaml: "),
        ("{task: digits, optim.rl: 1}", "config file .*run.yaml: .*optim.lr"),
        ("{task: dgits}", "config file .*run.yaml: .*digits"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_its_name(tmp_path, text, sentence):
    (tmp_path / "run.yaml").write_text(text)
    assert re.search(sentence, refused("train", "--config", tmp_path / "run.yaml"))


def test_what_to_train_is_asked_for_and_said_once():
    assert "train needs --task NAME, or --config FILE" in refused("train")
    assert "config file" in refused("train", "--config", "nowhere.yaml")
    assert "--recipe arc and --config" in refused("train", "--config", "nowhere.yaml", "--recipe", "arc")
