"""A trained student as a folder of plain files; load it and predict with it."""

from idat_tune.export.convert import FORMATS, check_format, convert, write_as
from idat_tune.export.folder import (
    FILES,
    FOLDER,
    PIXELS,
    STUDENTS,
    TEACHER,
    check_replaceable,
    is_export,
    label_names,
    save,
)
from idat_tune.export.loading import load
from idat_tune.export.student import Pair, Student

__all__ = [
    "FILES",
    "FOLDER",
    "FORMATS",
    "PIXELS",
    "STUDENTS",
    "TEACHER",
    "Pair",
    "Student",
    "check_format",
    "check_replaceable",
    "convert",
    "is_export",
    "label_names",
    "load",
    "save",
    "write_as",
]
