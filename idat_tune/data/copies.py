"""Pictures that are there more than once: by their files before an import, by their pixels while it decodes them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from idat_tune.errors import BadInput

if TYPE_CHECKING:
    from idat_tune.data.examined import Image
    from idat_tune.data.own import Row


def same_files(rows: Sequence[Row]) -> list[list[int]]:
    """The rows that have the same file, or files of the same bytes, where that are several.

    Reads only what has the size of another, or a size that is not known.
    """
    sizes = Counter(row.size for row in {row.name: row for row in rows}.values())
    digests: dict[str, bytes] = {}
    found: dict[bytes, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.name not in digests:
            digests[row.name] = _digest(row) if sizes[row.size] > 1 else _named(row)
        found[digests[row.name]].append(i)
    return [alike for alike in found.values() if len(alike) > 1]


def _digest(row: Row) -> bytes:
    try:
        return hashlib.sha256(row.read()).digest()
    except BadInput:
        return _named(row)  # the import names it when its turn comes


def _named(row: Row) -> bytes:
    return row.name.encode("utf-8", "surrogateescape")


def contradiction(pairs: Sequence[tuple[str, str, str, str]]) -> BadInput:
    """The error for pictures under two labels: of each, where it is and its label, twice."""
    (first, label, second, other), more = pairs[0], len(pairs) - 1
    counted = f" ({more} more such {'picture' if more == 1 else 'pictures'})" if more else ""
    return BadInput(
        f"{first} and {second} are one picture under two labels, '{label}' and '{other}'{counted}; "
        "correct them, or leave such pictures out with --drop-conflicts"
    )


class Seen:
    """The pictures that an import has come across, in all splits, by their pixels."""

    def __init__(self, made: Sequence[str], class_names: Sequence[str], one_label: bool, drop_conflicts: bool):
        """Take what the import is to be strict about.

        Args:
            made: splits that were divided at random, in which no picture may stand that stands anywhere else.
            class_names: of the labels.
            one_label: whether a picture under two labels is wrong.
            drop_conflicts: leave such pictures out instead of refusing them.
        """
        self.made, self.class_names, self.drop = made, class_names, drop_conflicts
        self.one_label = one_label
        self.dropped: set[bytes] = set()  # digests of pictures that stand under two labels, which are not taken
        self.restart()

    def restart(self) -> None:
        """Forget all but what is dropped."""
        self.first: dict[bytes, Image] = {}
        self.repeated = 0
        self.unwanted = 0
        self.conflicts: list[tuple[Image, Image]] = []

    def takes(self, image: Image, split: str) -> bool:
        """Whether an image is to be stored in that split; to be asked once for each, in order."""
        digest = image.pixels_digest
        if digest in self.dropped:
            self.unwanted += 1
            return False
        earlier = self.first.setdefault(digest, image)
        if earlier is image:
            return True
        if self.one_label and earlier.label != image.label:
            self.conflicts.append((earlier, image))
            return True  # whether it may stay is seen to when all have been looked at
        if split in self.made:
            self.repeated += 1
            return False
        return True

    def settled(self) -> bool:
        """Whether no picture under two labels was taken; if any was, the import is to start anew, without them.

        Raises:
            BadInput: there is one, and none may be left out.
        """
        if not self.conflicts:
            return True
        if not self.drop:
            name = self.class_names
            raise contradiction([(a.name, name[a.label], b.name, name[b.label]) for a, b in self.conflicts])
        self.dropped |= {image.pixels_digest for image, _ in self.conflicts}
        return False

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was not taken."""
        found = []
        if self.repeated:
            found.append(f"{self.repeated} images with the same pixels as others were left out")
        if self.unwanted:
            found.append(f"{self.unwanted} images that are the same picture under two labels were left out")
        return tuple(found)
