"""Answers for files and folders of images, by an exported student."""

from __future__ import annotations

import glob
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from idat_tune import data
from idat_tune.engine.cut import Cut
from idat_tune.errors import BadInput
from idat_tune.export import Pair, Student
from idat_tune.model import AdaptedModel

BATCH = 64  # images at once; more is no faster, and holds more memory


@dataclass(frozen=True)
class Answer:
    """What the student says of one file."""

    image: str  # the file
    top: tuple[tuple[str, float], ...] = ()  # labels with their probabilities (0..1), the most probable first
    error: str = ""  # why there is no answer
    adapter: str = ""  # who says so, where several students were asked


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
    for (answer,) in answers_of_all([student], files, top):
        yield answer


def answers_of_all(students: Sequence[Student], files: Sequence[Path], top: int = 1) -> Iterator[tuple[Answer, ...]]:
    """For each file what each of some students says; a file is decoded once for all who see it alike."""
    views = list({_view(student): student for student in students}.items())
    read = data.in_order(lambda file: {view: _pixels(student, file) for view, student in views}, files)
    waiting = zip(files, read, strict=True)
    while some := list(islice(waiting, BATCH)):
        yield from zip(*[_answered(student, some, top) for student in students], strict=True)


def _view(student: Student) -> Hashable:
    """Equal for students for whom an image becomes the same pixels."""
    spec = student.model.spec
    return spec.size, spec.channels, spec.interpolation, student.intensity


def _answered(student: Student, some: Sequence[tuple[Path, Mapping[Hashable, Tensor | str]]], top: int) -> list[Answer]:
    seen = [(file, pixels[_view(student)]) for file, pixels in some]
    known = iter(_most_probable(student, [pixels for _, pixels in seen if isinstance(pixels, Tensor)], top))
    return [
        Answer(str(file), error=pixels) if isinstance(pixels, str) else Answer(str(file), next(known))
        for file, pixels in seen
    ]


def of_bytes(student: Student, images: Sequence[bytes], top: int = 1) -> list[tuple[tuple[str, float], ...]]:
    """For each image, given as what its file holds, labels with their probabilities (0..1), the most probable first.

    Raises:
        BadInput: one is no image that can be read; it is called by its place.
    """
    found: list[tuple[tuple[str, float], ...]] = []
    for first in range(0, len(images), BATCH):
        some = enumerate(images[first : first + BATCH], first + 1)
        pixels = [student.transform(data.read_bytes(image, f"image {number}")) for number, image in some]
        found += _most_probable(student, pixels, top)
    return found


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
        logits_BC = _logits(student.model, torch.stack(images).to(student.model.device)).float()
    found = logits_BC.softmax(dim=-1).topk(min(top, len(student.labels)), dim=-1)
    return [
        tuple((student.labels[i], p) for i, p in zip(places, probabilities, strict=True))
        for places, probabilities in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def _logits(model: AdaptedModel | Pair, pixels: Tensor) -> Tensor:
    """As the model's own up to rounding, the last block computed as far as the head looks at it."""
    if isinstance(model, Pair):
        return model.mean(_logits(model.student, pixels), _logits(model.teacher, pixels))
    return Cut(model, cache=False).suffix((pixels,))
