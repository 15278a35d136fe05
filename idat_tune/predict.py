"""Answers for files and folders of images, by an exported student."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from idat_tune import data
from idat_tune.errors import BadInput
from idat_tune.export import Student

BATCH = 64  # images at once; more is no faster, and holds more memory


@dataclass(frozen=True)
class Answer:
    """What the student says of one file."""

    image: str  # the file
    top: tuple[tuple[str, float], ...] = ()  # labels with their probabilities (0..1), the most probable first
    error: str = ""  # why there is no answer


def image_files(given: Sequence[Path]) -> list[Path]:
    """The files that paths, folders and patterns mean, each once and in order.

    Of a folder, all images in it and below, as an import takes them. A path that does not exist but has one of `*?[` in
    it is a pattern, as for shells that do not expand them.

    Raises:
        BadInput: a folder without images, a pattern that matches nothing.
    """
    files: dict[Path, None] = {}
    for path in given:
        files.update(dict.fromkeys(_meant(path)))
    return list(files)


def _meant(path: Path) -> list[Path]:
    if path.is_dir():
        found = data.images_in(path)
        if not found:
            raise BadInput(f"no images in {path}; known are {', '.join(data.SUFFIXES)}")
        return found
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - may be absolute
    if not matches:
        raise BadInput(f"no file matches {path}")
    return [file for match in matches for file in ([match] if match.is_file() else _meant(match))]


def answers(student: Student, files: Sequence[Path], top: int = 1) -> Iterator[Answer]:
    """An answer for each file, in order, computed some at a time; who cannot be read gets one that says why.

    Args:
        student: as `export.load` gives it.
        files: any number of them.
        top: labels per answer, at most as many as there are classes.
    """
    read = data.in_order(lambda file: _pixels(student, file), files)
    waiting = zip(files, read, strict=True)
    while some := list(islice(waiting, BATCH)):
        known = iter(_most_probable(student, [pixels for _, pixels in some if isinstance(pixels, Tensor)], top))
        for file, pixels in some:
            yield Answer(str(file), error=pixels) if isinstance(pixels, str) else Answer(str(file), next(known))


def _pixels(student: Student, file: Path) -> Tensor | str:
    """The image as the student wants it, or why it cannot be read."""
    try:
        return student.transform(data.read_image(file))
    except BadInput as failure:
        return str(failure) if str(file) in str(failure) else f"{file}: {failure}"


def _most_probable(student: Student, images: list[Tensor], top: int) -> list[tuple[tuple[str, float], ...]]:
    if not images:
        return []
    with torch.no_grad():
        logits_BC = student(torch.stack(images).to(student.model.device)).float()
    found = logits_BC.softmax(dim=-1).topk(min(top, len(student.labels)), dim=-1)
    return [
        tuple((student.labels[i], p) for i, p in zip(places, probabilities, strict=True))
        for places, probabilities in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]
