"""What a machine lacks of a search: its workers fetch images and weights from the driver's machine, once, as files."""

import fcntl
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from idat_tune import data, tasks, weights
from idat_tune.backbones import EMBEDDED, RANDOM
from idat_tune.data import store
from idat_tune.errors import BadInput, Unfit
from idat_tune.weights.names import file_names

PIECE = 2**23  # bytes of a file that are asked for at once
AHEAD = 4  # pieces on their way
TRAVELS = ("OMP_NUM_THREADS", "HF_HUB_OFFLINE")  # of the driver's environment, as runs depend on it
FINDS = ("IDAT_TUNE_DATA", weights.FOLDER, "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE")  # likewise, for the depot


@dataclass(frozen=True)
class Wanted:
    """What a search takes, and who has it."""

    task: str
    content_hash: str
    backbones: Mapping[str, str]  # with weights in a file: its sha256
    environment: Mapping[str, str]
    depot: Any  # a `Depot` as an actor on the driver's machine


@dataclass(frozen=True)
class Offered:
    """A file that can be fetched."""

    place: str  # in the mirror
    bytes: int
    sha256: str


class Depot:
    """The driver's machine as it offers the files of a search, and no others."""

    def __init__(self, task: str, backbones: Mapping[str, str], environment: Mapping[str, str]):
        os.environ.update(environment)  # where the driver finds them
        self.files = {**_images_of(task), **{_place(name): _file_of(name) for name in backbones}}

    def offered(self) -> list[Offered]:
        """All files; they are hashed when the first machine asks, as perhaps none ever does."""
        return self._offered

    @cached_property
    def _offered(self) -> list[Offered]:
        return [Offered(place, path.stat().st_size, _sha256(path)) for place, path in self.files.items()]

    def piece(self, place: str, number: int) -> bytes:
        """A piece of a file; none behind its end."""
        with self.files[place].open("rb") as file:
            file.seek(number * PIECE)
            return file.read(PIECE)


def supply(wanted: Wanted | None) -> None:
    """See to it that this process finds the images and weights of a search, whatever its machine has.

    What is lacking, or is something else under the same name, is fetched into a folder of the user's cache that all
    workers of the machine share: by the first of them, while the others wait.

    Raises:
        Unfit: it cannot be fetched, or is not what was offered.
    """
    if wanted is None:  # no machine but the driver's
        return
    os.environ.update(wanted.environment)
    lacks_images = not _has_images(wanted)
    lacks_weights = not all(_has(name, sha256) for name, sha256 in wanted.backbones.items())
    if not (lacks_images or lacks_weights):
        return

    def piece(place: str, number: int) -> Any:
        return wanted.depot.piece.remote(place, number)

    try:
        mirror = _mirror(wanted)
        if not mirror.is_dir():  # else another process has fetched it, and nothing need be hashed
            fetched(mirror, ray.get(wanted.depot.offered.remote()), piece, ray.get)
    except (ray.exceptions.RayError, OSError) as failure:
        raise Unfit(f"what this machine lacks of the search could not be fetched: {failure}") from None
    if lacks_images:
        os.environ["IDAT_TUNE_DATA"] = str(mirror / "data")
        data.register_own()
    if lacks_weights:
        os.environ[weights.FOLDER] = str(mirror / "weights")


def fetched(
    mirror: Path, offered: list[Offered], piece: Callable[[str, int], Any], get: Callable[[Any], bytes]
) -> Path:
    """The folder with all that is offered; whole and checked, or not there.

    Args:
        mirror: the folder.
        offered: its files.
        piece: asks for a piece of a file, from 0.
        get: waits for what was asked for.

    Raises:
        Unfit: a file is not what was offered.
        OSError: there is no room, for one.
    """
    mirror.parent.mkdir(parents=True, exist_ok=True)
    with mirror.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mirror.is_dir():
            partial = mirror.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            for one in offered:
                _fetch(partial / one.place, one, piece, get)
            partial.rename(mirror)
    return mirror


def _fetch(path: Path, one: Offered, piece: Callable[[str, int], Any], get: Callable[[Any], bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers, coming, digest = count(), deque[Any](), hashlib.sha256()
    with path.open("wb") as file:
        while file.tell() < one.bytes:
            while len(coming) < AHEAD:
                coming.append(piece(one.place, next(numbers)))
            content = get(coming.popleft())
            if not content:
                break
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != one.sha256:
        raise Unfit(f"{one.place} did not arrive as it was sent")


def _mirror(wanted: Wanted) -> Path:
    """Named by what is in it."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    what = "/".join([wanted.content_hash, *(f"{name}={sha}" for name, sha in sorted(wanted.backbones.items()))])
    return Path(cache) / "idat-tune" / "supplied" / hashlib.sha256(what.encode()).hexdigest()[:16]


def _has_images(wanted: Wanted) -> bool:
    try:
        return data.content_hash(wanted.task) == wanted.content_hash
    except BadInput:
        return False


def _has(backbone: str, sha256: str) -> bool:
    """Whether the weights are here; the hub is not asked, which may have others."""
    try:
        return weights.here(weights.timm_name(backbone)) is not None and weights.identify(backbone).sha256 == sha256
    except BadInput:
        return False


def _images_of(task: str) -> dict[str, Path]:
    """The stored files of a task; none of an embedded one, which every machine can make."""
    known = tasks.get(task)
    if known.embedded:
        return {}
    folder = store.place(task)
    names = [store.MANIFEST, *(f"{split}.parquet" for split in store.read(task).splits)]
    return {f"data/{task}/{name}": folder / name for name in names}


def _place(backbone: str) -> str:
    full, path = weights.timm_name(backbone), _file_of(backbone)
    return f"weights/{path.name if path.name in file_names(full) else full + path.suffix}"


def _file_of(backbone: str) -> Path:
    return weights.find(weights.timm_name(backbone))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wanted(task: str, content_hash: str, known: Mapping[str, Mapping[str, Any]]) -> Wanted:
    """What a search takes, with this machine's offer of it; `known` are its weights as the manifest has them."""
    backbones = {
        name: held["sha256"]
        for name, held in known.items()
        if held.get("sha256") and name not in EMBEDDED and not name.startswith(RANDOM)
    }
    environment = {name: os.environ[name] for name in TRAVELS if name in os.environ}
    finds = {name: os.environ[name] for name in FINDS if name in os.environ}
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    depot = ray.remote(Depot).options(num_cpus=0, scheduling_strategy=here).remote(task, backbones, finds)
    return Wanted(task, content_hash, backbones, environment, depot)
