"""The MLflow server behind `ui`: started, waited for, and ended with the command."""

import errno
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from idat_tune import tracking
from idat_tune.errors import BadInput, IdatError
from idat_tune.interrupts import interruptible

START_SECONDS = 180.0  # until the server must answer; it takes 5 to 15
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask a server that listens everywhere
END_SECONDS = 5.0  # that it has to end by itself


def check_place(host: str, port: int) -> None:
    """Refuse an address that nothing can listen on.

    Raises:
        BadInput: the port is taken or out of range, or the host is no address of this machine.
    """
    if not 1 <= port <= 65535:
        raise BadInput(f"--port cannot be {port}: it goes from 1 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except PermissionError:
        raise BadInput(f"--port {port} is for the system's own programs; take one from 1024 on") from None
    except (OSError, UnicodeError) as failure:
        if isinstance(failure, OSError) and failure.errno == errno.EADDRINUSE:
            raise BadInput(
                f"port {port} of {host} is taken, perhaps by another ui; look at http://{host}:{port}, "
                f"or take another, such as --port {_free(host)}"
            ) from None
        raise BadInput(
            f"--host '{host}' is no address of this machine; 127.0.0.1 is for this machine alone, 0.0.0.0 for all"
        ) from None


def _free(host: str) -> int:
    """A port of an address that nothing listens on."""
    with socket.create_server((host, 0)) as found:
        return int(found.getsockname()[1])


def serve(out: Path, host: str, port: int, answers: Callable[[str], None]) -> None:
    """Run the server until this process is told to end; it ends with it, whatever signal that is.

    Args:
        out: what `tracking.store` is under.
        host: as `check_place` lets through.
        port: likewise.
        answers: called with the address once the server answers.

    Raises:
        KeyboardInterrupt: by Ctrl-C, or by SIGTERM or SIGHUP where they are not ignored.
        IdatError: the server ended by itself, or never answered.
    """
    # Job execution is for MLflow's own agents: without it the server takes 2 processes instead of 10.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryFile() as said, interruptible():
        # In a session of its own, so that all its processes can be ended at once.
        server = subprocess.Popen(
            tracking.server_command(out, host, port),
            env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            _wait_for(server, host, port, said)
            answers(f"http://{host}:{port}")
            server.wait()
            raise IdatError(f"the MLflow server has ended ({_last_line(said)}); start it again")
        finally:
            _end(server)


def _wait_for(server: "subprocess.Popen[bytes]", host: str, port: int, said: IO[bytes]) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        if _answers(EVERYWHERE.get(host, host), port):
            return
        time.sleep(0.2)
    raise IdatError(f"the MLflow server does not answer ({_last_line(said)})")


def _answers(host: str, port: int) -> bool:
    with suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(host, port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        finally:
            connection.close()
    return False


def views(host: str, port: int) -> list[tuple[str, str]]:
    """Names and links of the views that a server keeps of searches, newest search first; none if it does not say."""
    with suppress(OSError, ValueError, KeyError, http.client.HTTPException):
        connection = http.client.HTTPConnection(EVERYWHERE.get(host, host), port, timeout=10)
        try:
            wanted = json.dumps({"max_results": 1000})
            kind = {"Content-Type": "application/json"}
            connection.request("POST", "/api/2.0/mlflow/experiments/search", wanted, kind)
            found = json.loads(connection.getresponse().read())
            return tracking.links(found["experiments"], f"http://{host}:{port}")
        finally:
            connection.close()
    return []


def show(link: str) -> None:
    """Open a link where somebody sits in front of this machine's screen."""
    far = "SSH_CONNECTION" in os.environ
    screen = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if screen and not far:
        import webbrowser

        webbrowser.open(link)


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End all processes of the server."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(END_SECONDS)
