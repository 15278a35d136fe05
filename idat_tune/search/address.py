"""Ray clusters that may be there: whether one answers, asked before Ray would wait for it, and which is not used."""

import json
import os
import platform
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from idat_tune.errors import BadInput
from idat_tune.search.room import is_head_of_ray_up

AUTO, LOCAL = "auto", "local"
PATIENCE = 2.0  # seconds for each step of an answer
# What a client of HTTP/2, which gRPC speaks, begins with. The server answers with a frame of settings, of type 4.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
SETTINGS = 4
# In a process of its own: Ray's client waits for most of a minute, and may end the process that it is in.
ASK = """
import json, sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    head = GcsClient(address=sys.argv[1])
    found = json.loads(head.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=5).decode())
    alive = [node for node in head.get_all_node_info(timeout=5).values() if node.state == 0]
    print(json.dumps({**found, "machines": len(alive)}))
except AuthenticationError:
    print(json.dumps({"token": True}))
"""
LONGEST = 30.0  # seconds that this may take, imports on a busy machine included
NONE_NEEDED = "without --address the search starts Ray on this machine"


def resolved(address: str | None) -> str | None:
    """HOST:PORT of the cluster that --address means, which answers; None where Ray is to be started here.

    Without one it is the cluster whose head this machine is, if it is one of several machines or made by `ray up`.

    Raises:
        BadInput: what is no address of a cluster, or nobody answers there.
    """
    if address is None or not address.strip():
        return _headed()
    if address.strip() == LOCAL:
        return None
    said, found = _looked_up(address.strip())
    host, port = _parts(said, found)
    problem = silence(host, port) or _other_versions(said, _asked(found))
    if problem:
        raise BadInput(
            f"{said}: no Ray cluster answers there ({problem}); `ray start --head` prints the address of the one that "
            f"it starts, and {NONE_NEEDED}"
        )
    return found


def _headed() -> str | None:
    """The address of the cluster whose head this machine is; None if there is none that is meant to be shared.

    A Ray of one machine is somebody's own, a notebook's say, unless `ray up` made it and its others are yet to come.
    """
    named = os.environ.get("RAY_ADDRESS", "").strip()
    found = _read(cluster_file()) if named in ("", AUTO) else named
    if found is None or not _is_here(found) or not _lives(found):
        return None
    head = _asked(found)
    try:
        fits = head is not None and _other_versions(found, head) is None
    except BadInput:
        return None
    return found if fits and head and (head["machines"] > 1 or is_head_of_ray_up()) else None


def _is_here(address: str) -> bool:
    """Whether an address is one of this machine's."""
    try:
        host, _ = _parts("", address)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
            one.bind((host, 0))
    except (BadInput, OSError, UnicodeError):
        return False
    return True


def _asked(address: str) -> dict[str, Any] | None:
    """What a head says of its cluster; None if it is no head. Takes Ray's token if the cluster wants it."""
    found = _head(address, {})
    if found == {"token": True} and "RAY_AUTH_MODE" not in os.environ:
        found = _head(address, {"RAY_AUTH_MODE": "token"})
        if found and "token" not in found:
            os.environ["RAY_AUTH_MODE"] = "token"
    return found


def _head(address: str, environment: dict[str, str]) -> dict[str, Any] | None:
    words = [sys.executable, "-c", ASK, address]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST, env={**os.environ, **environment})
        found: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return found


def _other_versions(said: str, cluster: dict[str, Any] | None) -> str | None:
    """Why it is no head; None if it is one.

    Raises:
        BadInput: it is one, but not for us.
    """
    if cluster is None:
        return "something else than Ray's head listens there"
    if "token" in cluster:
        raise BadInput(
            f"{said}: that Ray cluster wants a token; set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or "
            f"~/.ray/auth_token; {NONE_NEEDED}"
        )
    ours = {"ray_version": version("ray"), "python_version": platform.python_version()}
    if cluster["ray_version"] != ours["ray_version"] or _minor(cluster) != _minor(ours):
        raise BadInput(
            f"{said}: that cluster runs Ray {cluster['ray_version']} on Python {cluster['python_version']}, and this "
            f"program Ray {ours['ray_version']} on Python {ours['python_version']}; install the cluster's versions "
            f"beside this program, or ours on the cluster; {NONE_NEEDED}"
        )
    return None


def _minor(versions: dict[str, Any]) -> list[str]:
    return versions["python_version"].split(".")[:2]


def _looked_up(address: str) -> tuple[str, str]:
    """What to call an address in a sentence, and the address."""
    if address != AUTO:
        return f"--address {address}", address
    named = os.environ.get("RAY_ADDRESS", "").strip()
    if named not in ("", AUTO, LOCAL):
        return f"--address auto takes RAY_ADDRESS={named}", named
    file = cluster_file()
    found = _read(file)
    if found is None:
        raise BadInput(
            f"--address auto: no Ray cluster is known here, as RAY_ADDRESS names none and there is no {file}; give "
            f"its HOST:PORT, start one with `ray start --head`, or leave the option away: {NONE_NEEDED}"
        )
    return f"--address auto takes {found} from {file}", found


def _parts(said: str, address: str) -> tuple[str, int]:
    scheme, separator, _ = address.partition("://")
    if separator and scheme == "ray":
        raise BadInput(
            f"{said}: that is for Ray's client, which cannot run a search; start it on a machine of the cluster with "
            f"--address auto or HOST:PORT, where PORT is 6379 unless `ray start` was told another; {NONE_NEEDED}"
        )
    if separator:
        raise BadInput(
            f"{said}: {scheme}:// is the address of a web page, as of Ray's dashboard; give HOST:PORT, where PORT is "
            f"6379 unless `ray start` was told another; {NONE_NEEDED}"
        )
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadInput(f"{said}: an address of a Ray cluster is HOST:PORT, as 10.0.0.1:6379, or auto; {NONE_NEEDED}")
    return host, int(port)


def silence(host: str, port: int, patience: float = PATIENCE) -> str | None:
    """Why nobody who speaks as Ray's head does answers there; None where one does."""
    try:
        with socket.create_connection((host, port), timeout=patience) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return None  # what it says is encrypted
            connection.settimeout(patience)
            connection.sendall(HELLO)
            heard = connection.recv(9)
    except TimeoutError:
        return f"nothing was heard for {patience:g} seconds"
    except (OSError, UnicodeError) as failure:
        return getattr(failure, "strerror", None) or str(failure)
    return None if len(heard) > 3 and heard[3] == SETTINGS else "something else than Ray listens there"


def cluster_file() -> Path:
    """Where `ray start` writes the address of the cluster that this machine belongs to."""
    return temporary()[1] / "ray" / "ray_current_cluster"


def temporary() -> tuple[str, Path]:
    """Ray's temporary folder, and the environment variable that names it; none if it is the default."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if name in os.environ:
            return name, Path(os.environ[name])
    return "", Path("/tmp")  # noqa: S108


def unused() -> str | None:
    """One line about a cluster that somebody may expect to be used where no --address is given; None if there is none.

    A cluster file alone says nothing: it stays when the cluster was killed.
    """
    named = os.environ.get("RAY_ADDRESS", "").strip()
    if named == LOCAL:
        return None
    if named in ("", AUTO):
        named, found = "", _read(cluster_file())
        if found is None or not _lives(found):
            return None
    what = f"RAY_ADDRESS={named}" if named else f"the Ray cluster at {found}"
    way = "run on one of its machines with --address auto" if "://" in named else "--address auto uses it"
    return f"{what} is not used, as the search starts Ray of its own; {way}"


def _lives(address: str) -> bool:
    try:
        return silence(*_parts("", address)) is None
    except BadInput:
        return False


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except (OSError, ValueError):  # none, or another user's
        return None
