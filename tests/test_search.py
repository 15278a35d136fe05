"""Whole searches, as a user runs them: real Ray, real Optuna, real MLflow, real training."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import torch
import vtab
from conftest import command

import idat_tune
from idat_tune import data, tasks
from idat_tune.metrics import read_table
from idat_tune.run import evaluate, to_device
from idat_tune.tracking import PARENT, uri

pytestmark = pytest.mark.slow


def runs_of(out, task):
    client = mlflow.MlflowClient(uri(out))
    experiment = client.get_experiment_by_name(f"idat-tune/{task}").experiment_id
    return client, client.search_runs([experiment], max_results=1000)


def test_the_json_has_the_promised_shape(searched):
    result, out, _ = searched
    assert result["task"] == "digits"
    assert sum(result["trials"].values()) == 6
    assert result["trials"]["failed"] == 0
    winner = result["winner"]
    assert set(winner) >= {"config", "val_accuracy", "confirmed", "test_accuracy", "trainable_params"}
    assert set(winner["test_accuracy"]) == {"mean", "std", "seeds"}
    assert winner["test_accuracy"]["seeds"] == 2
    assert set(result["arms"]) >= {"default", "alone", "no_distill"}
    assert set(winner["confirmed"]) >= {"mean", "standard_error"}
    assert result["arms"]["alone"]["config"]["teacher"] == "none"
    assert result["arms"]["default"]["test_accuracy"]["mean"] > 0.5
    assert Path(result["out"]) == out / "first"
    assert result["tracking_uri"] == uri(out)
    assert result["seconds"] > 0


def test_stdout_is_json_alone_and_no_noise_reaches_the_screen(searched):
    _, out, done = searched
    assert len(done.stdout.strip().splitlines()) == 1
    for line in done.stderr.splitlines():
        assert line.startswith(
            (
                *("search ", "arm-", "portfolio-", "trial-", "confirm-", "final-"),
                *("exploring ends", "the sampler", "the winner", "the test", "test "),
            )
        ), line
    assert "mlflow" in (out / "first" / "log.txt").read_text()


def test_the_files_of_a_search_are_there_and_agree(searched):
    result, out, _ = searched
    trials = read_table(out / "first" / "trials.parquet")
    epochs = read_table(out / "first" / "epochs.parquet")
    explored = [row for row in trials if row["stage"] == "explore"]
    assert sum("linear" not in row["trial"] for row in explored) == 6
    assert {row["trial"] for row in epochs} == {row["trial"] for row in trials}
    for row in trials:
        assert row["epochs_run"] == sum(epoch["trial"] == row["trial"] for epoch in epochs)
    of_winner = [row for row in trials if row["contender"] == result["winner"]["trial"]]
    confirmed = [row["val_accuracy"] for row in of_winner if row["stage"] == "confirm"]
    assert statistics.fmean(confirmed) == pytest.approx(result["winner"]["confirmed"]["mean"])
    assert len(confirmed) == 2
    manifest = json.loads((out / "first" / "manifest.json").read_text())
    lines = [json.loads(line) for line in (out / "first" / "journal.jsonl").read_text().splitlines()]
    assert [line.get("decision") for line in lines].count("opened") == 1
    assert all(line.get("time", line.get("ended")) > 1.7e9 for line in lines)
    assert manifest["data_hash"] == data.content_hash("digits")
    assert set(manifest["versions"]) >= {"python", "torch", "timm", "ray", "optuna", "mlflow"}


def test_only_final_runs_were_tested(searched):
    _, out, _ = searched
    for row in read_table(out / "first" / "trials.parquet"):
        assert (row["test_accuracy"] is None) == (row["stage"] != "final")
        assert (row["val_accuracy"] is None) == (row["stage"] == "final")


def test_the_exported_student_has_exactly_the_recorded_test_accuracy(searched):
    result, out, _ = searched
    student = idat_tune.load(out / "first" / "best")
    batches = [to_device(data.load("digits", "test", 32, 1), torch.device("cpu"))]
    accuracy, _ = evaluate(student, batches, student.config)
    assert accuracy == student.metrics["test_accuracy"]
    assert student.metrics["test_accuracy_mean"] == result["winner"]["test_accuracy"]["mean"]


def test_mlflow_has_a_parent_with_a_child_per_trial_and_the_student(searched):
    result, out, _ = searched
    client, runs = runs_of(out, "digits")
    (parent,) = [run for run in runs if PARENT not in run.data.tags]
    children = {run.data.tags["trial"]: run for run in runs if run.data.tags.get(PARENT) == parent.info.run_id}
    trials = {row["trial"]: row for row in read_table(out / "first" / "trials.parquet")}
    assert set(children) == set(trials)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    for name, run in children.items():
        assert run.data.params["optim.lr"] == str(trials[name]["optim.lr"])
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert len(history) == trials[name]["epochs_run"]
    assert parent.data.metrics["winner/test_accuracy"] == result["winner"]["test_accuracy"]["mean"]
    copied = Path(client.download_artifacts(parent.info.run_id, "best"))
    student = idat_tune.load(copied)
    assert student.metrics == idat_tune.load(out / "first" / "best").metrics


def test_workers_live_from_trial_to_trial(searched):
    _, out, _ = searched
    workers = {record["worker"] for record in records_of(out / "first" / "journal.jsonl")}
    assert len(workers) <= max(2, os.cpu_count() or 1)


def test_a_finished_search_given_again_answers_at_once_with_the_same(searched):
    result, out, _ = searched
    options = ["--trials", 6, "--epochs", 3, "--seeds", 2, "--folds", 2, "--out", out, "--name", "first", "--json"]
    began = (out / "first" / "journal.jsonl").stat().st_mtime_ns
    again = command("search", "--task", "digits", *options)
    assert again.returncode == 0
    assert json.loads(again.stdout) == result
    assert (out / "first" / "journal.jsonl").stat().st_mtime_ns == began


def test_another_seed_under_the_same_name_is_refused(searched):
    _, out, _ = searched
    options = ["--trials", 6, "--epochs", 3, "--seeds", 2, "--folds", 2, "--out", out, "--name", "first", "--seed", 5]
    refused = command("search", "--task", "digits", *options)
    assert refused.returncode == 2
    assert "was begun with another seed (0, not 5)" in refused.stderr


def wait_for(path, text, seconds=90, beyond=0):
    """Until a journal has some text, and more than so many trials."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = path.read_text() if path.exists() else ""
        if text in found and found.count(TRIAL) > beyond:
            return
        time.sleep(0.05)
    raise AssertionError(f"{text!r} did not come up in {path}")


def start(out, *options):
    """The search that the next test cuts off, in the background."""
    command_line = [sys.executable, "-m", "idat_tune.cli", "search", "--task", "sprites_loc", "--trials", "5"]
    command_line += [
        "--epochs",
        "3",
        "--seeds",
        "1",
        "--folds",
        "2",
        "--top-k",
        "1",
        "--out",
        str(out),
        "--name",
        "cut",
    ]
    return subprocess.Popen(
        [*command_line, "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # The tests themselves may run in the background of a shell, where SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


TRIAL = '"status"'  # in a line of a journal that is a trial's


def records_of(journal):
    """The trials of a journal, as they stand there."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    return [line for line in lines if "decision" not in line]


def kill_raylet(running):
    """What the out-of-memory killer may do: Ray's main process on this machine is gone."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    (raylet,) = [child for child in children if b"/raylet\0" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(int(raylet), signal.SIGKILL)


CUTS = [  # when the journal holds this, how the search is cut off, how it ends, and what it says
    ('"stage": "explore"', subprocess.Popen.kill, -signal.SIGKILL, ""),
    ('"arms": []', kill_raylet, 1, "Ray's raylet process died; what was finished is kept. Go on: "),
    ('"stage": "confirm"', lambda running: running.send_signal(signal.SIGINT), 130, "was interrupted"),
    # As `timeout`, systemd and a terminal that closes do it: Ray's own processes are told too.
    ('"stage": "final"', lambda running: os.killpg(running.pid, signal.SIGTERM), 130, "Go on: "),
]


def test_a_search_cut_off_in_every_stage_loses_nothing_and_repeats_nothing(tmp_path):
    journal = tmp_path / "cut" / "journal.jsonl"
    running, kept = start(tmp_path), []
    for seen, cut, code, sentence in CUTS:
        wait_for(journal, seen, beyond=len(kept))  # as the one before may have got there in its last moments
        cut(running)
        _, errors = running.communicate(timeout=180)
        assert running.returncode == code, errors
        assert sentence in errors
        now = [record["id"] for record in records_of(journal)]
        assert now[: len(kept)] == kept
        kept, running = now, start(tmp_path)
    output, errors = running.communicate(timeout=200)
    assert running.returncode == 0, errors
    ids = [record["id"] for record in records_of(journal)]
    assert ids[: len(kept)] == kept
    assert len(ids) == len(set(ids))
    assert sum(json.loads(output)["trials"].values()) == 5
    assert json.loads(output)["test_openings"] == 1
    _, runs = runs_of(tmp_path, "sprites_loc")
    trials = [run.data.tags["trial"] for run in runs if PARENT in run.data.tags]
    assert sorted(trials) == sorted(name for name in ids if name != "test")
    assert len(runs) == len(trials) + 1
    assert "RUNNING" not in {run.info.status for run in runs}


@pytest.mark.parametrize("way", [[], ["--stacked", "2", "--max-concurrent", "2"]])
def test_a_worker_that_is_killed_costs_one_attempt_and_no_result(tmp_path, way):
    options = ["search", "--task", "digits", "--trials", "4", "--epochs", "4", "--seeds", "1", "--no-confirm"]
    options += ["--out", str(tmp_path)]
    running = subprocess.Popen(
        [sys.executable, "-m", "idat_tune.cli", *options, *way, "--name", "k", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "k" / "journal.jsonl"
    wait_for(journal, TRIAL)
    worker = records_of(journal)[0]["worker"]
    os.kill(worker, signal.SIGKILL)
    output, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    result = json.loads(output)
    assert sum(result["trials"].values()) == 4
    assert result["trials"]["failed"] == 0
    if way:  # one host, so there must have been another
        records = records_of(journal)
        assert len({record["worker"] for record in records}) == 2


def test_a_worker_that_hangs_costs_one_attempt_and_is_no_more_when_the_search_ends(tmp_path):
    options = ["search", "--task", "digits", "--trials", "4", "--epochs", "4", "--seeds", "1", "--no-confirm"]
    running = subprocess.Popen(
        [sys.executable, "-m", "idat_tune.cli", *options, "--out", str(tmp_path), "--name", "h", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "IDAT_TUNE_STALLED_AFTER": "20"},
    )
    journal = tmp_path / "h" / "journal.jsonl"
    wait_for(journal, TRIAL)
    worker = records_of(journal)[0]["worker"]
    os.kill(worker, signal.SIGSTOP)
    output, errors = running.communicate(timeout=150)
    assert running.returncode == 0, errors
    assert "its worker made no progress for 2" in errors
    assert json.loads(output)["trials"]["failed"] == 0
    assert not Path(f"/proc/{worker}").exists()


def may_mount():
    """Whether this machine lets a user have a small disk of his own."""
    return (
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not may_mount(), reason="needs a disk of its own that can be filled")
def test_a_disk_that_runs_full_is_said_in_one_sentence_and_the_search_goes_on_once_there_is_room(tmp_path):
    options = "--task digits --trials 1 --epochs 2 --seeds 1 --no-confirm --set teacher=none --name full --json"
    search = f"{sys.executable} -m idat_tune.cli search {options} --out {tmp_path}/disk"
    script = f"""
        mount -t tmpfs -o size=8m tmpfs {tmp_path}
        {search} >/dev/null & search=$!
        until grep -qs {TRIAL!r} {tmp_path}/disk/full/journal.jsonl; do sleep 0.02; done
        dd if=/dev/zero of={tmp_path}/filler bs=1k 2>/dev/null
        wait $search; echo "exit code $?" >&2
        rm {tmp_path}/filler
        {search} && cat {tmp_path}/disk/full/journal.jsonl
    """
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "is full; make room and give the same command again: what was finished is kept" in done.stderr
    assert "exit code 1" in done.stderr
    result, *lines = map(json.loads, done.stdout.splitlines())
    records = [line for line in lines if "decision" not in line]
    assert result["trials"] == {"complete": 1, "stopped": 0, "failed": 0}
    # The default, the linear head at three rates, the final run of each, and the test.
    assert len({record["id"] for record in records}) == len(records) == 7


def test_several_tasks_come_back_as_a_list_with_stacked_trials_too(tmp_path):
    options = ["--trials", 4, "--epochs", 2, "--seeds", 2, "--folds", 2, "--top-k", 1, "--stacked", 2]
    tasks_asked = ["--task", "digits", "--task", "sprites_loc"]
    named = {"RAY_ADDRESS": "127.0.0.1:1"}
    done = command("search", *tasks_asked, *options, "--out", tmp_path, "--name", "many", "--json", **named)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RAY_ADDRESS=127.0.0.1:1 is not used, as the search starts Ray of its own") == 1
    results = json.loads(done.stdout)
    assert [result["task"] for result in results] == ["digits", "sprites_loc"]
    assert (tmp_path / "many.parquet").is_file()
    for found in results:
        assert Path(found["best"]).is_dir()
        assert sum(found["trials"].values()) == 4
        assert found["trials"]["failed"] == 0
        assert found["winner"]["test_accuracy"]["seeds"] == 2
        assert found["winner"]["confirmed"]["folds"] == 2
        assert found["test_openings"] == 1
        assert found["teacher_cost"] is None  # times of trials that share a process say nothing
        records = records_of(Path(found["out"], "journal.jsonl"))
        trained = [record for record in records if record["stage"] != "test"]
        assert len({record["worker"] for record in trained}) <= (os.cpu_count() or 1)
        rounds = {(record["worker"], epoch["seconds"]) for record in trained for epoch in record["epochs"]}
        assert len(rounds) < sum(len(record["epochs"]) for record in trained)  # some shared theirs


def test_a_search_from_python_is_the_same_search_in_any_thread_and_in_a_session_that_is_there(tmp_path):
    script = f"""
import threading
import ray
from idat_tune.search import Callback, search

class Heard(Callback):
    def on_remark(self, sentence):
        remarks.append(sentence)

def go():
    found = search(
        "digits", trials=2, fixed={{"epochs": 1}}, folds=0, seeds=1, name="p", out={str(tmp_path)!r},
        callbacks=[Heard()],
    )
    assert found["winner"]["test_accuracy"]["seeds"] == 1
    print("searched")

remarks = []
ray.init(address="local", num_cpus=2, include_dashboard=False)
thread = threading.Thread(target=go)
thread.start()
thread.join()
assert ray.is_initialized()
print(*remarks, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    searched, whose, room = done.stdout.splitlines()
    assert searched == "searched"
    assert "is used and stays as it is" in whose
    assert room.endswith("1 machine, 2 cores, 2 trials at once"), room
    assert (tmp_path / "p" / "best" / "adapter.safetensors").exists()


def test_all_19_tasks_go_through_and_come_back_as_one_table_with_both_means(tmp_path):
    copies, store = vtab.make(tmp_path / "copies", sizes=vtab.SEARCHABLE), tmp_path / "store"
    done = command("data", "import", "--from", copies, "--any-size", IDAT_TUNE_DATA=str(store))
    assert done.returncode == 0, done.stderr
    done = command(
        "search", "--task", "all", "--trials", 2, "--epochs", 1, "--seeds", 1, "--no-confirm", "--space", "embedded",
        "--set", "student=glyph_base", "--max-concurrent", 1, "--out", tmp_path / "runs", "--name", "vtab", "--json",
        IDAT_TUNE_DATA=str(store), timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    rows = {row["row"]: row for row in read_table(tmp_path / "runs" / "vtab.parquet")}
    named = [task.name for task in tasks.select(["all"])]
    means = ["natural mean", "specialized mean", "structured mean", "group mean", "overall mean"]
    assert [result["task"] for result in results] == named
    assert list(rows) == [*named, *means]
    tests = {task.name: rows[task.name]["winner_test"] for task in tasks.select(["all"])}
    groups = [statistics.fmean(tests[task.name] for task in tasks.select([name])) for name in tasks.VTAB]
    assert [rows[f"{name} mean"]["winner_test"] for name in tasks.VTAB] == pytest.approx(groups)
    assert rows["group mean"]["winner_test"] == pytest.approx(statistics.fmean(groups))
    assert rows["overall mean"]["winner_test"] == pytest.approx(statistics.fmean(tests.values()))
