"""Who holds a search folder, and that nobody else is taken for them."""

import json
import os
import platform
import subprocess
import sys
import time

import pytest

from idat_tune.errors import BadInput
from idat_tune.search.holding import LOCK, Holder, holder, locked
from idat_tune.search.machine import began

HOLDS = """
import sys, time
from pathlib import Path
from idat_tune.search.holding import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path / "s"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_who_holds_a_folder_is_known_to_others(tmp_path, other):
    found = holder(tmp_path / "s")
    assert (found.host, found.pid, found.is_here, found.lives()) == (platform.node(), other.pid, True, True)
    with (
        pytest.raises(BadInput, match="search 's' is running already; `idat-tune search --name s` shows it"),
        locked(tmp_path / "s"),
    ):
        pass
    assert holder(tmp_path / "s") == found  # which the vain try has not overwritten


def test_who_was_killed_holds_nothing(tmp_path, other):
    other.kill()
    other.wait()
    assert holder(tmp_path / "s") is None
    with locked(tmp_path / "s"):
        assert holder(tmp_path / "s").pid == os.getpid()
    assert (tmp_path / "s" / LOCK).read_text() == ""


def test_nobody_holds_what_is_not_there(tmp_path):
    assert holder(tmp_path) is None
    assert holder(tmp_path / "none") is None


def test_a_process_with_the_number_of_another_is_not_taken_for_it():
    us = Holder(platform.node(), os.getpid(), began(os.getpid()))
    assert us.lives()
    assert not Holder(platform.node(), os.getpid(), "1").lives()
    assert not Holder(platform.node(), 2**22 + 1, us.began).lives()


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"host": "a"})])
def test_a_folder_whose_holder_has_not_said_who_it_is_is_held_all_the_same(tmp_path, text):
    with locked(tmp_path / "s"):
        (tmp_path / "s" / LOCK).write_text(text)
        found = holder(tmp_path / "s")
        assert found is not None
        assert not found.is_here


def test_looking_is_no_holding(tmp_path):
    """Whoever begins a search while others look at it again and again gets it."""
    looks = "import sys\nfrom pathlib import Path\nfrom idat_tune.search.holding import holder\n"
    looks += "print('looks', flush=True)\nwhile True: holder(Path(sys.argv[1]))"
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / LOCK).touch()
    process = subprocess.Popen([sys.executable, "-c", looks, tmp_path / "s"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "looks\n"
        for _ in range(20):
            with locked(tmp_path / "s"):
                time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
