"""Frozen, validated values whose settings go by dotted keys, such as `optim.lr`."""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from idat_tune.errors import BadInput, shown, unknown


class Settings(BaseModel):
    """A value that is written and read as a flat mapping with dotted keys; sections are Settings too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    WAYS_OUT: ClassVar[Mapping[str, str]] = {}  # by key: what else to do where a value is no word and no number
    WHOLE: ClassVar[tuple[str, ...]] = ()  # keys that hold a mapping, or what else is no word and no number

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Self:
        """The value of a flat mapping with dotted keys; what is not named keeps its default.

        Raises:
            BadInput: an unknown key, or a value of the wrong type or out of range; names the key.
        """
        nested: dict[str, Any] = {}
        for key, value in flat.items():
            cls.check_key(key)
            cls.check_plain(key, value)
            section, _, name = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
        try:
            return cls.model_validate(nested)
        except ValidationError as failure:
            raise _as_bad_input(failure, flat) from None

    def flat(self) -> dict[str, Any]:
        """All settings under their dotted keys, in the order of the fields."""
        found: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            found |= {f"{name}.{key}": one for key, one in value.flat().items()} if _section(value) else {name: value}
        return found

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """A copy with some dotted keys changed; raises BadInput as `from_flat` does."""
        return self.from_flat({**self.flat(), **changes})

    @classmethod
    @cache
    def all_keys(cls) -> tuple[str, ...]:
        """Every dotted key, in the order of the fields."""
        return tuple(key for key, _, _ in cls._fields())

    @classmethod
    def check_key(cls, key: object) -> None:
        """Refuse a key that there is not.

        Raises:
            BadInput: with the nearest known one.
        """
        if key not in cls.all_keys():
            raise unknown("setting", key, cls.all_keys())

    @classmethod
    def check_plain(cls, key: str, value: Any) -> None:
        """Refuse a value of a known key that is no single word or number, or no value at all.

        Raises:
            BadInput: names the key.
        """
        may_be_unset, may_switch = cls._kinds()[key]
        way_out = cls.WAYS_OUT.get(key, "")
        if value is None and not may_be_unset:
            raise BadInput(f"{key} has no value{way_out or '; give one, or leave it away'}")
        if isinstance(value, bool) and not may_switch:
            raise BadInput(f"{key} cannot be {str(value).lower()}: it is not a switch{way_out}")
        if key not in cls.WHOLE and isinstance(value, list | tuple | dict | set | bytes):
            raise BadInput(f"{key} cannot be {shown(value)}: it takes a single word or number")

    @classmethod
    @cache
    def _kinds(cls) -> dict[str, tuple[bool, bool]]:
        return {key: (default is None, kind is bool) for key, default, kind in cls._fields()}

    @classmethod
    def _fields(cls) -> list[tuple[str, Any, Any]]:
        """Key, default and type of every setting."""
        found: list[tuple[str, Any, Any]] = []
        for name, field in cls.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, Settings):
                found += [(f"{name}.{key}", default, inner) for key, default, inner in kind._fields()]
            else:
                found.append((name, field.default, kind))
        return found


def _section(value: object) -> bool:
    return isinstance(value, Settings)


def _as_bad_input(failure: ValidationError, flat: Mapping[str, Any]) -> BadInput:
    error = failure.errors()[0]
    key = ".".join(str(part) for part in error["loc"])
    while key not in flat and "." in key:  # of several types that a value may have each is named below its key
        key = key.rpartition(".")[0]
    if error["type"] == "missing":
        return BadInput(f"setting '{key}' is missing")
    if error["type"] == "literal_error":
        known = [name.strip(" '") for name in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return unknown(key, flat.get(key), known)
    what = error["msg"].removeprefix("Input ")
    if error["type"] == "string_pattern_mismatch":
        what = "known: auto, cpu, mps, cuda, cuda:N"
    given = flat.get(key)
    return BadInput(f"{key} cannot be {repr(shown(given)) if isinstance(given, str) else shown(given)}: {what}")
