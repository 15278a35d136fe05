"""An export in another format: whole in one file, as ONNX, as a program of torch.export."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from idat_tune import reading
from idat_tune.errors import unknown
from idat_tune.export import portable, whole
from idat_tune.export.folder import (
    FOLDER,
    MERGED,
    ONNX,
    PIXELS,
    PROGRAM,
    STUDENTS,
    TEACHER,
    check_replaceable,
    describe,
    replacing,
    sha256,
)
from idat_tune.export.loading import MOST_CHARACTERS, load
from idat_tune.export.student import Pair, Student

FORMATS = tuple(STUDENTS)
LIBRARIES = {MERGED: "idat-tune", ONNX: "onnx", PROGRAM: "pytorch"}


def check_format(form: str) -> None:
    """Raise BadInput unless exports of that format can be written here."""
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if form == ONNX:
        portable.check_packages()


def write_as(form: str, to: Path, write: Callable[[Path], None]) -> dict[str, Any]:
    """Write an export in a format, of which `write` gives the ordinary folder; what `convert` returns.

    Raises:
        BadInput, IdatError: as `convert`.
    """
    to = to.absolute()
    if form == FOLDER:
        write(to)
        return dict(_provenance(to)["format"])
    check_replaceable(to)
    with TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as place:
        write(Path(place) / to.name)
        return convert(Path(place) / to.name, to, form)


def convert(source: Path, to: Path, form: str) -> dict[str, Any]:
    """Write an export folder in another format; what is at `to` is replaced as a whole.

    The adapters are merged into the backbone's weights where their kind can; else they stay beside them.

    Args:
        source: as `save` wrote it.
        to: where to; its parent must exist.
        form: merged, onnx or torch-export.

    Returns:
        What provenance.json then says under `format`: among others whether `adapters` are merged or beside, and of a
        graph the `largest_difference` of its logits.

    Raises:
        BadInput: the source cannot be loaded, `to` cannot be replaced, or a package is missing.
        IdatError: what was written gives other logits.
    """
    assert form != FOLDER
    to = to.absolute()
    check_format(form)
    check_replaceable(to)
    student = load(source)
    pair = isinstance(student.model, Pair)
    merged = whole.merges(student.config, pair)
    ready = load(source, merge=True) if merged else student
    about = {
        "name": form,
        "adapters": whole.MERGED if merged else whole.BESIDE,
        "with_teacher": pair,
        "library": LIBRARIES[form],
        "file": STUDENTS[form],
    }
    provenance = _provenance(source)
    with replacing(to) as place:
        path = place / STUDENTS[form]
        if form == MERGED:
            _write_whole(place, ready, merged)
        else:
            write = portable.write_onnx if form == ONNX else portable.write_program
            about["largest_difference"] = write(path, ready, student)
            portable.write_preprocessing(place, student, form)
        about["sha256"] = sha256(path)
        versions = {name: version(name) for name in portable.PACKAGES} if form == ONNX else {}
        provenance = {**provenance, "format": about, "versions": {**provenance["versions"], **versions}}
        describe(place, to.name, student.config, student.labels, student.metrics, provenance)
    return about


def _provenance(folder: Path) -> dict[str, Any]:
    return reading.json_value(reading.text(folder / "provenance.json", "file", MOST_CHARACTERS))


def _write_whole(place: Path, student: Student, merged: bool) -> None:
    models = {STUDENTS[MERGED]: student.model}
    if isinstance(student.model, Pair):
        models = {STUDENTS[MERGED]: student.model.student, TEACHER: student.model.teacher}
    for name, model in models.items():
        whole.write(place / name, model, merged)  # type: ignore[arg-type]
    (place / PIXELS).write_text(json.dumps({"intensity": student.intensity}) + "\n")
