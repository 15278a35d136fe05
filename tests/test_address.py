"""Ray clusters that may be there: what --address may be, who answers, and what is said of one that is not used."""

import platform
import socket
import threading
from contextlib import contextmanager
from importlib.metadata import version

import pytest
from conftest import command

from idat_tune.errors import BadInput
from idat_tune.search import address
from idat_tune.search.address import resolved, silence, unused

SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # what a server that speaks HTTP/2 begins with


@pytest.fixture(autouse=True)
def no_other_ray(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@contextmanager
def listening(answer=None):
    """The port of one who takes every connection and answers with this, or with nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve():
            while True:
                try:
                    held.append(server.accept()[0])
                    if answer:
                        held[-1].sendall(answer)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def leave_cluster_file(folder, text):
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text(text)


@pytest.mark.parametrize("said", [None, "", " ", "local"])
def test_without_an_address_ray_is_started_here(said):
    assert resolved(said) is None


OURS = {"ray_version": version("ray"), "python_version": platform.python_version(), "machines": 2}


@pytest.fixture
def head(monkeypatch, tmp_path):
    """A head of a cluster on this machine, whose answer a test may change; and the home folder is an empty one."""
    said = dict(OURS)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(address, "_head", lambda asked, environment: said)
    with listening(SETTINGS) as port:
        leave_cluster_file(tmp_path, f"127.0.0.1:{port}\n")
        yield said, f"127.0.0.1:{port}"


def test_on_the_head_of_a_cluster_it_is_found_without_an_address(head):
    assert resolved(None) == resolved("") == head[1]
    assert resolved("local") is None


def test_a_ray_of_one_machine_is_somebodys_own_unless_ray_up_made_it(head, tmp_path):
    head[0]["machines"] = 1
    assert resolved(None) is None
    (tmp_path / "ray_bootstrap_config.yaml").write_text("{}")
    assert resolved(None) == head[1]


@pytest.mark.parametrize("says", [{"ray_version": "1.2.3"}, {"python_version": "3.8.1"}, {"token": True}])
def test_a_cluster_that_is_not_for_this_program_is_not_taken_unasked(head, says):
    head[0].update(says)
    assert resolved(None) is None


def test_a_cluster_elsewhere_is_not_taken_unasked(head, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.77:6379")
    assert resolved(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert resolved(None) == head[1]


def test_a_head_that_was_killed_is_not_taken(tmp_path):
    leave_cluster_file(tmp_path, f"127.0.0.1:{closed_port()}")
    assert resolved(None) is None


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("ray://127.0.0.1:10001", "that is for Ray's client, which cannot run a search"),
        ("http://127.0.0.1:8265", "http:// is the address of a web page"),
        ("127.0.0.1", "an address of a Ray cluster is HOST:PORT"),
        ("127.0.0.1:", "an address of a Ray cluster is HOST:PORT"),
        (":6379", "an address of a Ray cluster is HOST:PORT"),
        ("host:port", "an address of a Ray cluster is HOST:PORT"),
        ("127.0.0.1:66000", "an address of a Ray cluster is HOST:PORT"),
        ("no-such-host.invalid:6379", "no Ray cluster answers there ("),
        (f"{'a' * 300}:6379", "no Ray cluster answers there ("),
    ],
)
def test_what_is_no_address_of_a_cluster_is_refused_with_the_cause(said, cause):
    with pytest.raises(BadInput) as caught:
        resolved(said)
    assert str(caught.value).startswith(f"--address {said}: {cause}")
    assert "without --address the search starts Ray on this machine" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (None, "nothing was heard for 0.2 seconds"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else than Ray listens there"),
        (SETTINGS, None),
    ],
)
def test_who_listens_is_known_from_the_first_bytes(answer, cause):
    with listening(answer) as port:
        assert silence("127.0.0.1", port, patience=0.2) == cause


def test_who_speaks_as_ray_does_but_is_no_head_is_told_apart(monkeypatch):
    monkeypatch.setattr(address, "LONGEST", 3.0)
    with listening(SETTINGS) as port, pytest.raises(BadInput, match="something else than Ray's head listens there"):
        resolved(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ({"token": True}, "wants a token; set RAY_AUTH_MODE=token"),
        ({"ray_version": "1.2.3", "python_version": "3.11.7"}, "runs Ray 1.2.3 on Python 3.11.7, and this program Ray"),
    ],
)
def test_a_cluster_that_is_not_for_this_program_is_refused(monkeypatch, head, sentence):
    monkeypatch.setattr(address, "_head", lambda asked, environment: head)
    with listening(SETTINGS) as port, pytest.raises(BadInput, match=sentence):
        resolved(f"127.0.0.1:{port}")


def test_auto_without_any_cluster_says_where_it_looked(tmp_path):
    with pytest.raises(BadInput) as caught:
        resolved("auto")
    assert f"there is no {tmp_path}/ray/ray_current_cluster" in str(caught.value)


def test_auto_takes_ray_address_before_the_cluster_file(tmp_path, monkeypatch):
    leave_cluster_file(tmp_path, f"127.0.0.1:{closed_port()}")
    with pytest.raises(BadInput, match=r"--address auto takes 127.0.0.1:\d+ from .*ray_current_cluster: no Ray"):
        resolved("auto")
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:1")
    with pytest.raises(BadInput, match="--address auto takes RAY_ADDRESS=ray://elsewhere:1: that is for Ray's client"):
        resolved("auto")


def test_a_cluster_that_is_not_used_is_told_of_and_one_that_was_killed_is_not(tmp_path, monkeypatch):
    assert unused() is None
    leave_cluster_file(tmp_path, f"127.0.0.1:{closed_port()}")
    assert unused() is None
    with listening(SETTINGS) as port:
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}\n")
        assert unused().startswith(f"the Ray cluster at 127.0.0.1:{port} is not used")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert unused().startswith("RAY_ADDRESS=10.0.0.1:6379 is not used")
    assert unused().endswith("--address auto uses it")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert unused() is None


@pytest.mark.parametrize("way", [[], ["--dry-run"]])
def test_a_search_at_a_mute_address_answers_soon_and_writes_nothing(tmp_path, way):
    with listening() as port:
        words = ["search", "--task", "digits", "--address", f"127.0.0.1:{port}", *way]
        done = command(*words, cwd=tmp_path, timeout=60)  # Ray itself would wait for ten minutes
    assert done.returncode == 2
    assert f"--address 127.0.0.1:{port}: no Ray cluster answers there (nothing was heard" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
