"""`ui`: says when it answers, and leaves nothing behind."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import command

from idat_tune import tracking
from idat_tune.cli.serving import check_place
from idat_tune.errors import BadInput


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_refused_with_another_one(taken):
    with pytest.raises(BadInput, match=rf"port {taken} of 127.0.0.1 is taken, .* or take another, such as --port \d+$"):
        check_place("127.0.0.1", taken)


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9])
def test_a_port_that_there_cannot_be_is_refused(port):
    with pytest.raises(BadInput, match=f"--port cannot be {port}: it goes from 1 to 65535"):
        check_place("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "a" * 300, "\u00fc" * 100])
def test_a_host_that_is_not_this_machine_is_refused(host):
    with pytest.raises(BadInput, match="is no address of this machine; 127.0.0.1 is for this machine alone"):
        check_place(host, 5000)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("", "no tracking store at"),
        ("./mlruns", "is './mlruns', a folder"),
        ("http://127.0.0.1:9", "runs are tracked by http://127.0.0.1:9"),
    ],
)
def test_without_a_store_of_its_own_there_is_a_sentence(tmp_path, setting, sentence):
    done = command("ui", "--out", tmp_path, "--port", 5987, MLFLOW_TRACKING_URI=setting)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_named_at_once(tmp_path):
    tracking.store(tmp_path).write_bytes(b"no database" * 100)
    done = command("ui", "--out", tmp_path, "--port", 5987)
    assert done.returncode == 1
    assert "mlflow.db cannot be used (file is not a database); move it away" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def processes_of(session):
    """Those of a session that live: one that is dead may stand in the list until somebody asks how it ended."""
    found = subprocess.run(["ps", "-s", str(session), "-o", "stat="], capture_output=True, text=True).stdout
    return [state for state in found.split() if not state.startswith("Z")]


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """A folder with a store, under a name that a URI would take for something else."""
    out = tmp_path_factory.mktemp("runs?")
    tracking.lay_out(out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_it_says_when_it_answers_on_this_machine_alone_and_no_server_outlives_it(laid_out, number):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["ui", "--out", str(laid_out), "--port", str(port)]
    running = subprocess.Popen(
        [sys.executable, "-m", "idat_tune.cli", *options],
        stderr=subprocess.PIPE, text=True,
        # The tests themselves may run in the background of a shell, where SIGINT is ignored, or under nohup.
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)],
    )  # fmt: skip
    try:
        while not (line := running.stderr.readline()).startswith("http"):
            assert running.poll() is None, line
        assert line == f"http://127.0.0.1:{port} answers (Ctrl-C ends it)\n"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        (server,) = children(running.pid)
        running.send_signal(number)
        assert running.wait(60) == 130
        assert running.stderr.read() == "error: the server was told to end, and has; what it showed stays as it is\n"
    finally:
        running.kill()
    deadline = time.monotonic() + 30  # a kill takes its time
    while processes_of(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(server) == []
    with socket.create_server(("127.0.0.1", port)):
        pass


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.slow
def test_a_server_that_ends_by_itself_is_told(laid_out):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = subprocess.Popen(
        [sys.executable, "-m", "idat_tune.cli", "ui", "--out", str(laid_out), "--port", str(port)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not children(running.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(int(children(running.pid)[0]), signal.SIGKILL)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 1
    assert errors.splitlines()[-1].startswith("error: the MLflow server does not answer (")
