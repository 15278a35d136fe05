"""What this machine has for trials and for Ray: GPUs, cores, a folder for its sockets, room for its object store."""

import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from idat_tune.errors import BadInput
from idat_tune.search.address import temporary
from idat_tune.search.config import ResourcesConfig, SearchConfig

STORE_BYTES = 1_000_000_000  # of the object store on this machine; a task's images at 224 pixels take 150 MB
LEAST_SHARED = 400_000_000  # bytes of shared memory below which the store goes to the disk
LONGEST_SOCKET = 107 if sys.platform.startswith("linux") else 103  # bytes of its path
SOCKET_BELOW = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
SMALLEST_PART = 0.0001  # of a GPU, that Ray counts
MOST_PER_CORE = 32  # trials at once
SHARED = Path("/dev/shm")  # noqa: S108
FAREWELL = 0.5  # seconds that Ray's processes have to end by themselves after its shutdown


def gpus_of_each(there: float, config: SearchConfig) -> float:
    """How much of a GPU each process takes where there are so many GPUs.

    Raises:
        BadInput: more than there are, what Ray cannot count, or none where GPU-hours are to be counted.
    """
    asked = config.resources.gpus_per_trial
    gpus = asked if asked is not None else min(1.0, there)
    if asked is not None and not (SMALLEST_PART <= asked <= 1 or asked.is_integer()):
        raise BadInput(
            f"--gpus-per-trial cannot be {gpus:g}: a trial takes whole GPUs or a part of one, from {SMALLEST_PART} on"
        )
    if gpus > there and not config.resources.address:  # a cluster may yet grow
        raise BadInput(
            f"--gpus-per-trial cannot be {gpus:g}: this machine has {there:g} GPUs; "
            f"{'give a part of one for several trials on it, or ' * bool(there)}leave the option away"
        )
    if config.explore.gpu_hours is not None and not gpus:
        raise BadInput("--gpu-hours cannot be counted: trials take no GPU here; use --hours")
    return gpus


def check_processes(resources: ResourcesConfig) -> None:
    """Refuse more trials at once than this machine can hold."""
    cores, most = os.cpu_count() or 1, resources.max_concurrent
    if resources.stacked == 1 and most and most > MOST_PER_CORE * cores:
        raise BadInput(
            f"--max-concurrent cannot be {most}: each of them is a process of about half a GB, and this machine has "
            f"{cores} cores; give at most {MOST_PER_CORE * cores}, or a cluster's --address"
        )


def ray_folder() -> Path:
    """The folder of Ray's sockets and logs: Ray's usual one, or where another user has that, one beside it.

    Raises:
        BadInput: neither can be made, or their paths are too long for sockets.
    """
    name, base = temporary()
    base = base.absolute()
    way_out = "set RAY_TMPDIR to a short path that can be written, such as /tmp/myray"
    said = f"{name or 'the temporary folder'} {base}"
    for folder in (base / "ray", base / f"ray-{os.getuid()}"):
        spare = LONGEST_SOCKET - len(os.fsencode(folder)) - SOCKET_BELOW
        if spare < 0:
            raise BadInput(f"{said} is {-spare} characters too long for the sockets that Ray makes in it; {way_out}")
        nearest = _nearest(folder)
        if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
            return folder
    raise BadInput(f"{said} cannot be written, and Ray needs a folder for its sockets; {way_out}")


def store(folder: Path) -> dict[str, Any]:
    """How `ray.init` is told of Ray's object store: in shared memory, or where that is short on the disk of a folder.

    Raises:
        BadInput: there is room on neither.
    """
    shared = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
    if shared >= LEAST_SHARED:
        return {"object_store_memory": min(STORE_BYTES, int(0.9 * shared))}
    free = shutil.disk_usage(_nearest(folder)).free
    if free < STORE_BYTES:
        raise BadInput(
            f"Ray's object store has no room: {shared / 1e9:.1f} GB are free on {SHARED} and {free / 1e9:.1f} GB on "
            f"the disk of {folder}; it takes {LEAST_SHARED / 1e9:g} GB of the first (in a container: --shm-size=2g) or "
            f"{STORE_BYTES / 1e9:g} GB of the second"
        )
    return {"object_store_memory": STORE_BYTES, "_plasma_directory": str(folder)}


def _nearest(folder: Path) -> Path:
    """A folder, or what of its path is there."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def need_no_home() -> None:
    """Give Ray the secret of its own session where it could not write it into the home folder."""
    home = Path.home() / ".ray"
    writable = os.access(home if home.exists() else home.parent, os.W_OK)
    if not (writable or (home / "auth_token").exists()):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def processes_of_ray(folder: Path) -> dict[int, str]:
    """Those that this process started for the Ray of a folder, and theirs, each with when it began."""
    told = {}  # of every process: its parent, when it began, what it was started with
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            parent, since = _fields(int(entry.name))
            told[int(entry.name)] = parent, since, (entry / "cmdline").read_bytes()
    ours = os.getpid()
    found = {pid for pid, (parent, _, words) in told.items() if parent == ours and os.fsencode(folder) in words}
    while more := {pid for pid, (parent, _, _) in told.items() if parent in found} - found:
        found |= more
    return {pid: told[pid][1] for pid in found}


def end(processes: Mapping[int, str]) -> None:
    """End those that do not end by themselves: stopped ones, and Ray's agents, which look only now and then."""
    deadline = time.monotonic() + FAREWELL
    while (left := [pid for pid, since in processes.items() if lives(pid, since)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def began(pid: int) -> str:
    """When a process began, as the kernel counts; nothing of one that is not there."""
    try:
        return _fields(pid)[1]
    except OSError:
        return ""


def lives(pid: int, since: str) -> bool:
    """Whether a process is still the one that began then, and more than an entry that its parent has not read."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        return state != "Z" and _fields(pid)[1] == since
    except OSError:
        return False


def _fields(pid: int) -> tuple[int, str]:
    """The parent of a process, and when it began."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[1]), fields[19]
