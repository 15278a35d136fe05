"""Images that stand in two splits: what was learnt from cannot tell what was learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from idat_tune.data.examined import Image
from idat_tune.errors import BadInput
from idat_tune.tasks import Task

MOST_SHARED = 0.05  # of a split may be in another too; more is taken for a mistake


@dataclass(frozen=True)
class Duplicates:
    """Images that are in two splits."""

    first: str  # split
    second: str  # split
    bytes: int  # images of the second whose file is in the first
    pixels: int  # images of the second that look exactly like one in the first
    example: str  # the name of one; empty where there is none
    like: str = ""  # the name of the one in the first that it looks like


def between(first: str, a: Sequence[Image], second: str, b: Sequence[Image]) -> Duplicates:
    """The images of split `second`, `b`, that stand in split `first`, `a`, too."""
    stored = {image.bytes_digest for image in a}
    shown = {image.pixels_digest: image.name for image in a}
    same = [image for image in b if image.bytes_digest in stored]
    alike = [image for image in b if image.pixels_digest in shown]
    example = (alike[0].name, shown[alike[0].pixels_digest]) if alike else ("", "")
    return Duplicates(first, second, len(same), len(alike), *example)


def refuse(task: Task, found: Sequence[Duplicates], images: Mapping[str, int]) -> None:
    """Raises BadInput if val or test shares so many images with what is trained on that its figures mean nothing.

    The published test splits of some benchmarks do; theirs are told, and not refused.
    """
    for shared in found:
        benchmark_test = task.group != "own" and shared.second == "test"
        if shared.pixels > MOST_SHARED * images[shared.second] and not benchmark_test:
            where = "train or val" if shared.first == "trainval" else shared.first
            raise BadInput(
                f"{shared.pixels} of {images[shared.second]} {shared.second} images of {task.name} are in {where} too, "
                f"{shared.example} for one, which looks exactly like {shared.like}; leave each image in one split, "
                "and of copies keep one"
            )
