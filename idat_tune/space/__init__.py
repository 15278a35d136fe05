"""A YAML search space: domains with conditions, checked against RunConfig before anything starts."""

from idat_tune.space.domains import Ask, Choice, Condition, Domain, Param, Range, distribution
from idat_tune.space.files import TAKEN, folder, load, named, of, parse, written_params
from idat_tune.space.points import Space, checked

__all__ = [
    "TAKEN",
    "Ask",
    "Choice",
    "Condition",
    "Domain",
    "Param",
    "Range",
    "Space",
    "checked",
    "distribution",
    "folder",
    "load",
    "named",
    "of",
    "parse",
    "written_params",
]
