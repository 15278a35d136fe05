"""What of this machine's disk a cluster file would send to every machine."""

import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from idat_tune.clusters.findings import ERROR, WARNING, Finding

PRIVATE = (".git", ".env", ".env.*", ".venv", ".ssh", ".aws", "id_rsa", "id_ed25519", "*.pem", "*.key", "runs")
PICTURES = ("*.jpg", "*.jpeg", "*.png", "*.tif", "*.tiff", "*.bmp", "*.webp", "*.gif", "*.heic", "*.dcm")
TOKEN = "auth_token"  # noqa: S105 - the name of its file
MOST_BYTES = 200_000_000  # each `ray up` hashes all of them
NEVER = "`make wheel` makes a folder of what is needed and nothing else: mount dist/cluster"


def mounted(mounts: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with files and folders that travel; those of this machine are looked at."""
    for there, here in mounts.items():
        yield from _mounted(f"file_mounts.{there}", str(here))


def _mounted(where: str, here: str) -> Iterator[Finding]:
    local = Path(os.path.expanduser(here))  # noqa: PTH111 - which leaves `~nobody` as it is
    place = local.resolve()
    if any(place in (one, *one.parents) for one in (Path.cwd(), Path.home())):
        yield Finding(ERROR, where, f"{here} is the whole of {place}, and all that is private in it; {NEVER}")
    elif not local.exists():
        made = "; `make wheel` makes it" if place.parts[-2:] == ("dist", "cluster") else ""
        yield Finding(ERROR, where, f"there is no {here} here, so nothing can be started{made}")
    elif local.is_dir():
        yield from _folder(where, here, local)
    elif _like(local.name, PRIVATE):
        yield Finding(ERROR, where, f"{here} is private, and would travel; {NEVER}")


def _folder(where: str, here: str, folder: Path) -> Iterator[Finding]:
    private, pictures, size = set(), 0, 0
    for parent, folders, files in os.walk(folder):
        private |= {name for name in (*folders, *files) if _like(name, PRIVATE)}
        pictures += sum(_like(name.lower(), PICTURES) for name in files)
        paths = [Path(parent) / name for name in files]
        size += sum(path.lstat().st_size for path in paths)
        for path in paths:
            if path.name == TOKEN and path.exists() and path.stat().st_mode & 0o077:
                yield Finding(
                    ERROR, where, f"{path} can be read by other users of this machine; chmod 600 it, or make another"
                )
    if private:
        yield Finding(ERROR, where, f"{here} holds {', '.join(sorted(private)[:4])}, which would travel; {NEVER}")
    if pictures:
        yield Finding(
            WARNING,
            where,
            f"{here} holds {pictures} pictures; bring them to the head alone, from which machines fetch what they need",
        )
    if size > MOST_BYTES:
        yield Finding(WARNING, where, f"{here} has {size / 1e6:.0f} MB, which each `ray up` hashes and sends")


def _like(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
