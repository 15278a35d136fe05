"""What a machine has for Ray: refused with the cause where it is not enough, before anything is written."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from conftest import command

from idat_tune.errors import BadInput
from idat_tune.search import machine
from idat_tune.search.cluster import log_rays_messages
from idat_tune.search.config import ResourcesConfig, SearchConfig
from idat_tune.search.machine import check_processes, gpus_of_each, ray_folder, store

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def short(monkeypatch):
    """A temporary folder that Ray's sockets fit in."""
    folder = Path(f"/tmp/idat-{os.getpid()}")
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_ray_has_its_usual_folder_and_none_is_made_by_looking(short):
    assert ray_folder() == short / "ray"
    assert list(short.iterdir()) == []


def test_where_another_user_has_the_usual_folder_ray_gets_one_beside_it(short, monkeypatch):
    (short / "ray").mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != short / "ray" and allowed(path, mode))
    assert ray_folder() == short / f"ray-{os.getuid()}"


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_that_is_too_long_for_sockets_is_named(monkeypatch, name):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "/tmp/" + "long/" * 8)
    with pytest.raises(BadInput, match=f"^{name} /tmp/long/.* is 5 characters too long for the sockets"):
        ray_folder()


def test_a_temporary_folder_that_cannot_be_written_is_named(short, monkeypatch):
    (short / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(short / "file"))
    with pytest.raises(BadInput, match=f"^RAY_TMPDIR {short}/file cannot be written"):
        ray_folder()


@pytest.mark.parametrize(
    ("shared", "disk", "wanted"),
    [(2e9, 0, {"object_store_memory": 10**9}), (5e8, 0, {"object_store_memory": 450_000_000})],
)
def test_rays_store_takes_shared_memory_as_far_as_there_is(monkeypatch, shared, disk, wanted):
    space = {machine.SHARED: shared}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, int(space.get(path, disk))))
    assert store(Path("/tmp")) == wanted


def test_rays_store_goes_to_the_disk_where_shared_memory_is_short_and_needs_room_there(monkeypatch):
    space = {machine.SHARED: 64_000_000, Path("/"): 2_000_000_000}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, space[path]))
    assert store(Path("/ray-of-nobody"))["_plasma_directory"] == "/ray-of-nobody"
    space[Path("/")] = 3_000_000
    with pytest.raises(BadInput, match="has no room: 0.1 GB are free on /dev/shm and 0.0 GB on the disk of"):
        store(Path("/ray-of-nobody"))


@pytest.mark.parametrize(("there", "asked", "each"), [(0, None, 0), (2, None, 1), (2, 0.25, 0.25), (4, 2.0, 2)])
def test_the_part_of_a_gpu_that_a_trial_takes(there, asked, each):
    assert gpus_of_each(there, SearchConfig.of("digits", gpus_per_trial=asked)) == each


@pytest.mark.parametrize("asked", [0.5, 1.0, 1.5, 0.00001, float("inf")])
def test_more_gpus_than_there_are_and_odd_parts_are_refused(asked):
    with pytest.raises(BadInput, match="gpus.per.trial cannot be"):
        gpus_of_each(0, SearchConfig.of("digits", gpus_per_trial=asked))


def test_a_cluster_may_yet_grow_to_the_gpus_asked_for():
    assert gpus_of_each(0, SearchConfig.of("digits", gpus_per_trial=1.0, address="10.0.0.1:6379")) == 1


def test_more_processes_than_a_machine_can_hold_are_refused():
    most = machine.MOST_PER_CORE * (os.cpu_count() or 1)
    check_processes(ResourcesConfig(max_concurrent=most))
    with pytest.raises(BadInput, match=f"--max-concurrent cannot be {most + 1}: .* give at most {most}"):
        check_processes(ResourcesConfig(max_concurrent=most + 1))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--gpus-per-trial", 99], "--gpus-per-trial cannot be 99"),
        (["--gpu-hours", 1, "--gpus-per-trial", 99], "--gpus-per-trial cannot be 99"),
        (["--max-concurrent", 10**12], "--max-concurrent cannot be 1000000000000"),
    ],
)
def test_what_this_machine_has_not_is_said_before_anything_is_written(tmp_path, options, sentence):
    done = command("search", "--task", "digits", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_processes_of_ray_that_do_not_end_are_ended_children_too(short):
    script = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    ours = subprocess.Popen([sys.executable, "-c", script, str(short)], stdout=subprocess.PIPE, text=True)
    other = subprocess.Popen(["sleep", "60"])
    child = int(ours.stdout.readline())
    try:
        os.kill(ours.pid, signal.SIGSTOP)
        found = machine.processes_of_ray(short)
        assert set(found) == {ours.pid, child}
        machine.end(found)
        assert ours.wait(5) == -signal.SIGKILL
        deadline = time.monotonic() + 5
        while machine.lives(child, found[child]):
            assert time.monotonic() < deadline
        assert other.poll() is None
    finally:
        ours.kill()
        other.kill()


def test_what_ray_tells_of_workers_is_logged_and_not_printed_amid_our_json(monkeypatch, capsys, caplog):
    from ray._private import worker

    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)  # which comes back after this
    monkeypatch.setattr(logging.getLogger("ray"), "propagate", True)
    log_rays_messages()
    with caplog.at_level(logging.INFO, logger="ray"):
        worker.print_to_stdstream({"is_err": False, "lines": ["6 worker processes"], "pid": "raylet"}, False)
    assert capsys.readouterr().out == ""
    assert "6 worker processes" in caplog.text
