"""Search spaces from YAML files, checked key by key and as a whole."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idat_tune import reading, recipes
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput, shown, unknown
from idat_tune.space.domains import Choice, Condition, Domain, Param, Range
from idat_tune.space.logic import check_conditions, possible
from idat_tune.space.points import Space, checked, known
from idat_tune.space.words import DOMAINS, RANGES, ours

SECTIONS = ("name", "params", "fixed", "start", "arms")
# Names that searches give to what they compare; see `search.plan` and `search.verdict`.
TAKEN = ("default", "alone", "no_distill", "linear", "winner", "winner_alone", "winner_with_teacher")
LONGEST_ARM = 40  # characters of a name, which become part of names of files
SUFFIXES = (".yaml", ".yml", ".json")
MOST_DOMAINS = 50  # of one key
# A range beyond these is a slip: every trial from its upper part diverges. Single values are the user's own will.
SANE = {"optim.lr": 10.0, "optim.weight_decay": 100.0, "adapter.scale": 1e4, "distill.weight": 1e6}


def folder() -> Path:
    """Where the spaces that come with the package lie."""
    package = Path(__file__).parent.parent
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"


def named() -> tuple[str, ...]:
    """The spaces that come with the package."""
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


def of(space: str | Mapping[str, Any] | None) -> Space:
    """A space by its name or file, or from the mapping that such a file would hold.

    Raises:
        BadInput: as `load` and `parse`.
    """
    return load(space) if isinstance(space, str) else parse(space)


def load(name: str) -> Space:
    """Read a space by name (`idat`) or from a YAML or JSON file, and check it.

    Raises:
        BadInput: there is no such space, or it is malformed; names the file and the key.
    """
    path = folder() / f"{name}.yaml" if name in named() else Path(name)
    if path.suffix.lower() not in SUFFIXES:
        if "/" in name:
            raise BadInput(f"space file {shown(name, 200)} is none: a space is a YAML file, named FILE.yaml")
        raise unknown("space", name, [*named(), "FILE.yaml"])
    content = reading.text(path, "space file")
    try:
        value = reading.json_value(content) if path.suffix.lower() == ".json" else reading.yaml_value(content)
        return parse(value, path.stem)
    except BadInput as failure:
        raise BadInput(f"space file {path}: {failure}") from None


def parse(content: Any, name: str = "space") -> Space:
    """A space from the mapping that a YAML file holds: `params`, and what is wanted of the other SECTIONS.

    One that has `arms` may do without `params`: it proposes nothing. `name` is that of a space which does not name
    itself.

    Raises:
        BadInput: an unknown section, key, domain or condition, a value that RunConfig refuses, a condition that can
            never hold, two domains of a key at once, a start point outside the domains, or an arm that cannot be one.
    """
    if isinstance(content, dict) and content.get("arms"):
        content = {"params": {}, **content}
    if not isinstance(content, dict) or not isinstance(content.get("params"), dict):
        bare = isinstance(content, dict) and "params" not in content and set(content) & _KEYS
        way_out = "; put the keys under `params:`" if bare else ", such as {optim.lr: {log_uniform: [0.001, 0.1]}}"
        raise BadInput(f"a space is a mapping with a `params` mapping of key to domain{way_out}")
    for section in content:
        if section not in SECTIONS:
            raise unknown("section", section, SECTIONS)
    fixed = _settings(content.get("fixed") or {}, "fixed")
    params = tuple(param for key, given in content["params"].items() for param in _params(key, given))
    both = [param.key for param in params if param.key in fixed]
    if both:
        raise BadInput(f"'{both[0]}' stands both in params and in fixed; keep one")
    given = content.get("start") or []
    if not isinstance(given, list):
        raise BadInput(f"`start` is a list of mappings, not {shown(given)}")
    points = [_point(point, "start") for point in given]
    arms = _arms(content.get("arms") or {}, fixed)
    if not params and not arms:
        raise BadInput("`params` is empty, so there is nothing to search; give it a key, such as optim.lr")
    ordered = _ordered(params, fixed)
    check_conditions(ordered, fixed)
    for number, point in enumerate(points, 1):
        _check_start(f"start point {number}", point, ordered, fixed)
    return Space(
        str(content.get("name", name)),
        ordered,
        tuple(fixed.items()),
        tuple(tuple(point.items()) for point in points),
        tuple((arm, tuple(point.items())) for arm, point in arms.items()),
    )


def written_params(content: Mapping[str, Any]) -> tuple[Param, ...]:
    """The params of what `Space.written` gave, in which some may never be active, as others were held later."""
    return tuple(param for key, given in content["params"].items() for param in _params(key, given))


_KEYS = {*RunConfig.all_keys(), *RunConfig.model_fields}  # dotted ones, and sections of them


def _settings(given: Any, section: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BadInput(f"`{section}` holds mappings of key to value, not {shown(given)}")
    _check_dotted(given)
    return {key: checked(key, value) for key, value in given.items()}


def _point(given: Any, section: str) -> dict[str, Any]:
    """The settings of a point, which may begin from a recipe."""
    if not isinstance(given, dict) or "recipe" not in given:
        return _settings(given, section)
    changes = _settings({key: value for key, value in given.items() if key != "recipe"}, section)
    return recipes.under(str(given["recipe"]), changes)


def _arms(given: Any, fixed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The arms by name; what they set need not lie in the domains."""
    if not isinstance(given, dict):
        raise BadInput(f"`arms` is a mapping of name to a mapping of key to value, not {shown(given)}")
    found = {}
    for name, point in given.items():
        if not isinstance(name, str) or not re.fullmatch(f"[a-z][a-z0-9_]{{0,{LONGEST_ARM - 1}}}", name):
            raise BadInput(
                f"an arm cannot be named {shown(name)!r}: names are of small letters, digits and '_', begin with a "
                f"letter, and have {LONGEST_ARM} characters at most"
            )
        if name in TAKEN:
            raise BadInput(f"an arm cannot be named '{name}': every search calls one of its own so; take another name")
        found[name] = _point(point, "arms")
        _check_held(f"arm '{name}'", found[name], fixed)
    return found


def _check_held(name: str, point: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for key, value in point.items():
        if fixed.get(key, value) != value:
            raise BadInput(f"{name} sets {key} to {value}, and `fixed` to {fixed[key]}; keep one")


def _check_dotted(given: Mapping[Any, Any]) -> None:
    for key, inner in given.items():
        first = f"{key}.{next(iter(inner), '')}" if isinstance(inner, dict) else ""
        if key not in RunConfig.all_keys() and first in RunConfig.all_keys():
            raise BadInput(f"'{key}' is no setting of its own: write its keys with a dot, such as {first}")


def _params(key: Any, given: Any) -> list[Param]:
    _check_dotted({key: given})
    known(key)
    bare = isinstance(given, list) and not any(isinstance(alternative, dict) for alternative in given)
    alternatives = given if isinstance(given, list) and not bare else [given]
    params = [_param(key, alternative) for alternative in alternatives]
    if len(params) == 1:
        return params
    if any(not param.conditions for param in params):
        raise BadInput(f"'{key}' stands several times, so each needs a `when` or an `unless`")
    if len(params) > MOST_DOMAINS:
        raise BadInput(f"'{key}' has {len(params)} domains; at most {MOST_DOMAINS} are taken")
    return [Param(p.key, p.domain, p.conditions, f"{key}[{','.join(map(str, p.conditions))}]") for p in params]


def _param(key: str, given: Any) -> Param:
    domains = (
        {name: value for name, value in given.items() if name not in ("when", "unless")}
        if isinstance(given, dict)
        else given
    )
    written = ours(domains, isinstance(RunConfig(task="dtd").flat()[key], int))
    if not isinstance(domains, dict):
        raise BadInput(f"'{key}' needs a domain such as {written or '{choice: [a, b]} or {log_uniform: [low, high]}'}")
    kinds = list(domains)
    if len(kinds) != 1 or kinds[0] not in DOMAINS:
        came = ", ".join(map(str, kinds)) or "nothing"
        if written:
            words = ", ".join(DOMAINS)
            raise BadInput(f"unknown domain of '{key}': '{shown(came)}'; did you mean {written}? known: {words}")
        raise unknown(f"domain of '{key}':", came, DOMAINS)
    domain = _domain(key, kinds[0], domains[kinds[0]])
    conditions = (*_conditions(key, given, "when"), *_conditions(key, given, "unless"))
    return Param(key, domain, conditions, key)


def _domain(key: str, kind: str, values: Any) -> Domain:
    if kind == "choice":
        if not isinstance(values, list) or not values:
            raise BadInput(f"choice of '{key}' needs a list of at least one value, not {shown(values)}")
        found = tuple(checked(key, value) for value in values)
        if len(set(found)) < len(found):
            raise BadInput(f"choice of '{key}' names a value twice: {shown(values)}")
        return Choice(found)
    if not isinstance(values, list) or len(values) != 2:
        raise BadInput(f"{kind} of '{key}' needs [low, high], not {shown(values)}")
    low, high = (checked(key, value) for value in values)
    options = RANGES[kind]
    wanted = int if options["integer"] else float
    if isinstance(low, bool) or not isinstance(low, wanted) or not isinstance(high, wanted):
        raise BadInput(f"'{key}' cannot be searched with {kind}: its values {_way_out(low, kind)}")
    if not low < high or (options["log"] and low <= 0):
        raise BadInput(f"{kind} of '{key}' needs {'0 < ' if options['log'] else ''}low < high, not {shown(values)}")
    if high > SANE.get(key, high):
        raise BadInput(
            f"{kind} of '{key}' goes up to {high:g}, where training diverges; let it end at {SANE[key]:g} or below"
        )
    return Range(low, high, **options)


def _way_out(value: Any, kind: str) -> str:
    if isinstance(value, bool | str):
        return "are no numbers; use choice"
    return (
        f"are whole numbers; use int_{kind}"
        if isinstance(value, int)
        else f"are no whole numbers; use {kind.removeprefix('int_')}"
    )


def _conditions(key: str, given: Mapping[str, Any], word: str) -> tuple[Condition, ...]:
    if word not in given:
        return ()
    if not isinstance(given[word], dict) or not given[word]:
        raise BadInput(
            f"`{word}` of '{key}' is a mapping of key to value, such as {{teacher: none}}, not {shown(given[word])}"
        )
    found = []
    for other, value in given[word].items():
        values = value if isinstance(value, list) else [value]
        if not values:
            raise BadInput(f"`{word}` of '{key}' names no value of '{shown(other)}'")
        found.append(Condition(other, tuple(dict.fromkeys(checked(other, v) for v in values)), word == "unless"))
    return tuple(found)


def _ordered(params: tuple[Param, ...], fixed: Mapping[str, Any]) -> tuple[Param, ...]:
    """The params in their order, each moved behind those that its conditions ask about."""
    there = {param.key for param in params} | set(fixed)
    for param in params:
        for condition in param.conditions:
            if condition.key not in there:
                raise BadInput(f"'{param.key}' depends on '{condition.key}', which this space does not set")
    ordered: list[Param] = []
    waiting = list(params)
    while waiting:
        pending = {param.key for param in waiting}
        ready = [param for param in waiting if not any(c.key in pending for c in param.conditions)]
        if not ready:
            raise BadInput(f"the conditions of {', '.join(sorted(pending))} go round in a circle")
        ordered += ready
        waiting = [param for param in waiting if param not in ready]
    return tuple(ordered)


def _check_start(name: str, point: Mapping[str, Any], params: tuple[Param, ...], fixed: Mapping[str, Any]) -> None:
    """Refuse a point that the space does not have; what it sets beyond the searched keys is its own."""
    searched = {param.key for param in params}
    _check_held(name, point, fixed)
    for key, value in point.items():
        domains = [param.domain for param in params if param.key == key]
        if domains and not any(value in domain for domain in domains):
            raise BadInput(f"{name} lies outside the space: {key} is {value}, not in {' or '.join(map(str, domains))}")
    wanted = [Condition(key, (value,)) for key, value in point.items() if key in searched]
    if not possible(wanted, params, fixed):
        raise BadInput(
            f"{name} lies outside the space: its values cannot stand together, by the conditions of the space"
        )
