"""A YAML search space: domains with conditions, checked against RunConfig before anything starts."""

from idat_tune.space.domains import Ask, Choice, Condition, Domain, Param, Range
from idat_tune.space.files import folder, load, named, of, parse
from idat_tune.space.points import Space, checked

__all__ = [
    "Ask",
    "Choice",
    "Condition",
    "Domain",
    "Param",
    "Range",
    "Space",
    "checked",
    "folder",
    "load",
    "named",
    "of",
    "parse",
]
