"""Ctrl-C, SIGTERM and SIGHUP at any moment: one sentence, exit code 130; what is ignored stays ignored."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from idat_tune.interrupts import ECHO, SIGNALS, Interrupts, interruptible
from idat_tune.search import SearchConfig, cluster

SLEEPER = """
import signal, sys, time
from idat_tune.interrupts import interruptible
try:
    with interruptible() as interrupts:
        print("in", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("out", interrupts.asked, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
"""


def started(words, ignored=()):
    def as_told():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=as_told
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_each_of_the_signals_is_a_keyboard_interrupt_and_what_was_before_comes_back(number):
    running = started(["-c", SLEEPER])
    assert running.stdout.readline() == "in\n"
    running.send_signal(number)
    assert running.communicate(timeout=10) == ("out True True\n", "")


def test_nohup_keeps_its_word():
    running = started(["-c", SLEEPER], ignored=[signal.SIGHUP])
    assert running.stdout.readline() == "in\n"
    running.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(0.3)
    running.send_signal(signal.SIGTERM)
    assert running.communicate(timeout=10) == ("out True True\n", "")


def test_more_of_them_right_after_the_first_do_not_cut_the_closing_short(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    interrupts = Interrupts()
    interrupts.check()
    for moment, heard in [(0.0, True), (ECHO - 0.1, False), (ECHO, True), (ECHO + 0.1, False)]:
        now[0] = moment
        raised = False
        try:
            interrupts()
        except KeyboardInterrupt:
            raised = True
        assert raised is heard
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


def test_inside_of_another_the_same_goes_on():
    with interruptible() as outer, interruptible() as inner:
        assert inner is outer
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does
        inner.renew()
        assert signal.getsignal(signal.SIGTERM) is outer
    assert signal.getsignal(signal.SIGTERM) is not outer


def handles(pid, number):
    """Whether a process has a handler of a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.0])
def test_a_search_ends_in_one_sentence_while_the_program_is_being_imported(tmp_path, number, seconds):
    running = started(["-m", "idat_tune.cli", "search", "--task", "digits", "--out", str(tmp_path / "runs")])
    while not handles(running.pid, number):
        assert running.poll() is None
    time.sleep(seconds)
    os.kill(running.pid, number)
    output, errors = running.communicate(timeout=30)
    assert (running.returncode, output) == (130, ""), errors
    assert len(errors.splitlines()) == 1
    assert "interrupted" in errors


def test_one_that_falls_into_a_destructor_is_remembered_and_not_printed(capsys):
    class Dying:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with interruptible() as interrupts:
        Dying()
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("code", "asked", "closed", "lost"),
    [
        (-signal.SIGTERM, True, False, []),  # told as we are, only sooner
        (0, True, False, []),
        (-signal.SIGTERM, False, False, ["dashboard"]),
        (-signal.SIGKILL, False, False, ["dashboard"]),
        (0, False, True, []),  # as the search is over
    ],
)
def test_a_process_of_rays_that_hears_a_signal_before_we_do_is_not_told_of_as_one_that_died(
    code, asked, closed, lost, monkeypatch
):
    from ray._private import worker

    process = SimpleNamespace(returncode=code)
    node = SimpleNamespace(dead_processes=lambda: [("dashboard", process)])
    monkeypatch.setattr(worker, "_global_node", node)
    monkeypatch.setattr(cluster, "ECHO", 60.0 if asked or closed else 0.2)
    session, told = cluster.Session(SearchConfig.of("digits")), []
    session._ours, session.lost = True, told.append
    watching = threading.Thread(target=session._watch, daemon=True)
    watching.start()
    if asked:
        time.sleep(2 * cluster.WATCH_EVERY)  # in a call of Ray's that looks for signals once a second
        with pytest.raises(KeyboardInterrupt):
            session.interrupts()
    session._ours = not closed
    watching.join(30)
    assert not watching.is_alive()
    assert told == lost
