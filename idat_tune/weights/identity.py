"""What identifies a backbone's weights: the sha256 of their file."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from idat_tune import embedded
from idat_tune.backbones import EMBEDDED, RANDOM
from idat_tune.errors import BadInput
from idat_tune.weights import files, names

RULE = "timm's initial values, drawn from torch's seed 0"  # what `random:` means, so that it is the same everywhere
SHOWN = 12  # digits of a hash in a sentence


@dataclass(frozen=True)
class Identity:
    """Which weights they are."""

    file: str  # its name, without the folder; for random ones the rule that they are drawn by
    sha256: str | None  # of the file; None for random ones

    def __str__(self) -> str:
        return f"{self.file} (sha256 {self.sha256[:SHOWN]})" if self.sha256 else self.file

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    def same_as(self, held: Mapping[str, Any]) -> bool:
        """Whether they are those that `as_dict` told of; the file may have got another name since."""
        return (self.sha256 or self.file) == (held.get("sha256") or held.get("file"))


def identify(backbone: str) -> Identity:
    """The weights that this machine has for a backbone; a file is read once per process.

    Raises:
        BadInput: they cannot be had.
    """
    if backbone.startswith(RANDOM):
        return Identity(RULE, None)
    if backbone in EMBEDDED:
        return _of_file(embedded.weights_file(backbone))
    return _of_file(files.find(names.timm_name(backbone)))


def check_same(backbone: str, held: Mapping[str, Any], whose: str, way_out: str) -> None:
    """Refuse other weights than those that `Identity.as_dict` told of.

    Args:
        backbone: whose weights.
        held: what something was made with.
        whose: what was done with those, as the beginning of a sentence: "search 'x' was begun with".
        way_out: what to do, or where, besides finding the right file.

    Raises:
        BadInput: naming both files and hashes; or they cannot be had.
    """
    found = identify(backbone)
    if not found.same_as(held):
        before = Identity(str(held.get("file")), held.get("sha256"))
        raise BadInput(
            f"{whose} the weights {before} of {backbone}, but here they are {found}; put that file where this one lies "
            f"or name its folder with --weights or {files.FOLDER}{way_out}"
        )


def _of_file(path: Path) -> Identity:
    try:
        state = path.stat()
        return Identity(path.name, _sha256(path, state.st_size, state.st_mtime_ns))
    except OSError as failure:
        raise BadInput(f"weights {path} cannot be read: {failure.strerror}; fetch them again") from None


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed: int) -> str:
    """Of a file as it was then."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
