"""A YAML search space: domains with conditions, checked against RunConfig before anything starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from idat_tune.config import RunConfig, keys
from idat_tune.errors import BadInput, unknown

SECTIONS = ("params", "fixed", "start")


@dataclass(frozen=True)
class Choice:
    """One of a list of values, in no order."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both included; uniform in its logarithm if `log`."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


Domain = Choice | Range
Ask = Callable[[str, Domain], Any]

RANGES = {
    "uniform": {"log": False, "integer": False},
    "log_uniform": {"log": True, "integer": False},
    "int_uniform": {"log": False, "integer": True},
    "int_log_uniform": {"log": True, "integer": True},
}
DOMAINS = ("choice", *RANGES)


@dataclass(frozen=True)
class Condition:
    """Holds when a key has one of some values (or, negated, when it has none of them)."""

    key: str
    values: tuple[Any, ...]
    negated: bool = False

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it holds for what has been chosen; a key that is itself switched off holds for nothing."""
        return self.key in chosen and (chosen[self.key] in self.values) != self.negated


@dataclass(frozen=True)
class Param:
    """A domain for a key, under conditions; the same key may have several, one at most active at a time."""

    key: str
    domain: Domain
    conditions: tuple[Condition, ...] = ()
    label: str = ""  # unique name: the key, with its conditions where it stands several times

    def active(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the key is to be chosen from this domain, given what was chosen before."""
        return all(condition.holds(chosen) for condition in self.conditions)


@dataclass(frozen=True)
class Space:
    """What a search may try: domains in an order in which conditions come after what they ask about."""

    name: str
    params: tuple[Param, ...]
    fixed: tuple[tuple[str, Any], ...] = ()
    start: tuple[tuple[tuple[str, Any], ...], ...] = ()

    def propose(self, ask: Ask) -> dict[str, Any]:
        """One point as a flat mapping: fixed keys, and every active param's value from `ask(label, domain)`."""
        chosen = dict(self.fixed)
        for param in self.params:
            if param.key not in chosen and param.active(chosen):
                chosen[param.key] = ask(param.label, param.domain)
        return chosen

    def with_fixed(self, fixed: Mapping[str, Any]) -> Self:
        """The space with some keys held at a value: they are not searched any more."""
        fixed = {key: _checked(key, value) for key, value in fixed.items()}
        held = {**dict(self.fixed), **fixed}
        params = tuple(param for param in self.params if param.key not in fixed)
        start = tuple(tuple({**dict(point), **fixed}.items()) for point in self.start)
        return type(self)(self.name, params, tuple(held.items()), start)

    def labels_of(self, point: Mapping[str, Any]) -> dict[str, Any] | None:
        """Label to value for a config, as `propose` would have asked; None if the config lies outside the space."""
        labels: dict[str, Any] = {}

        def look_up(label: str, domain: Domain) -> Any:
            param = next(param for param in self.params if param.label == label)
            labels[label] = point[param.key]
            return point[param.key]

        proposed = self.propose(look_up)
        inside = all(point[key] == value for key, value in proposed.items())
        return labels if inside and all(self._contains(label, value) for label, value in labels.items()) else None

    def _contains(self, label: str, value: Any) -> bool:
        domain = next(param.domain for param in self.params if param.label == label)
        return value in domain.values if isinstance(domain, Choice) else domain.low <= value <= domain.high

    def part(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Of a config found elsewhere what this space searches; nothing if a value lies outside its domains."""
        chosen, found = dict(self.fixed), {}
        for param in self.params:
            if param.key in chosen or param.key not in point or not param.active({**point, **chosen}):
                continue
            if not self._contains(param.label, point[param.key]):
                return {}
            chosen[param.key] = found[param.key] = point[param.key]
        return found

    def as_dict(self) -> dict[str, Any]:
        """A plain mapping that tells two spaces apart, for the manifest."""
        params = [[param.label, repr(param.domain)] for param in self.params]
        return {"name": self.name, "params": params, "fixed": dict(self.fixed), "start": [dict(p) for p in self.start]}


def folder() -> Path:
    """Where the spaces that come with the package lie."""
    installed = Path(__file__).parent / "search_spaces"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "search_spaces"


def named() -> tuple[str, ...]:
    """The spaces that come with the package."""
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


def load(name: str) -> Space:
    """Read a space by name (`idat`) or from a YAML file, and check it.

    Raises:
        BadInput: there is no such space, or it is malformed; names the file and the key.
    """
    path = folder() / f"{name}.yaml" if name in named() else Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise unknown("space", name, [*named(), "FILE.yaml"])
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise BadInput(f"space file {path} cannot be read: {failure.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"space file {path} is not text; a space is a YAML file with a `params` mapping") from None
    except yaml.YAMLError as failure:
        raise BadInput(f"space file {path} is not valid YAML: {_where(failure)}") from None
    try:
        return parse(content, path.stem)
    except BadInput as failure:
        raise BadInput(f"{path}: {failure}") from None


def _where(failure: yaml.YAMLError) -> str:
    mark = getattr(failure, "problem_mark", None)
    problem = getattr(failure, "problem", None) or str(failure).split("\n")[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def parse(content: Any, name: str = "space") -> Space:
    """A space from the mapping that a YAML file holds (DESIGN: sections `params`, `fixed`, `start`).

    Raises:
        BadInput: an unknown section, key, domain or condition, or a value that RunConfig refuses.
    """
    if not isinstance(content, dict) or not isinstance(content.get("params"), dict):
        raise BadInput("a space is a mapping with a `params` mapping of key to domain")
    for section in content:
        if section not in SECTIONS:
            raise unknown("section", section, SECTIONS)
    fixed = _settings(content.get("fixed") or {}, "fixed")
    start = content.get("start") or []
    if not isinstance(start, list):
        raise BadInput(f"`start` is a list of mappings, not {start!r}")
    points = tuple(tuple(_settings(point, "start").items()) for point in start)
    params = tuple(param for key, given in content["params"].items() for param in _params(key, given, fixed))
    both = [param.key for param in params if param.key in fixed]
    if both:
        raise BadInput(f"'{both[0]}' stands both in params and in fixed; keep one")
    ordered = _ordered(params, fixed)
    _check_values(ordered)
    return Space(name, ordered, tuple(fixed.items()), points)


def _settings(given: Any, section: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BadInput(f"`{section}` holds mappings of key to value, not {given!r}")
    return {key: _checked(key, value) for key, value in given.items()}


def _known(key: Any) -> str:
    if key == "task":
        raise BadInput("'task' is chosen with --task, not in a space")
    if key not in keys():
        raise unknown("setting", key, keys())
    return key


def _checked(key: Any, value: Any) -> Any:
    """The value as RunConfig understands it: `1e-3`, which YAML reads as text, becomes a number."""
    _known(key)
    # Alone among defaults, and with so many epochs that no warm-up is too long: only the value itself is judged.
    others = {"epochs": 10**6} if key != "epochs" else {"optim.warmup_epochs": 0}
    return RunConfig.from_flat({"task": "dtd", **others, key: value}).flat()[key]


def _params(key: Any, given: Any, fixed: Mapping[str, Any]) -> list[Param]:
    _known(key)
    alternatives = given if isinstance(given, list) else [given]
    params = [_param(key, alternative) for alternative in alternatives]
    if len(params) == 1:
        return params
    if any(not param.conditions for param in params):
        raise BadInput(f"'{key}' stands several times, so each needs a `when` or an `unless`")
    return [Param(p.key, p.domain, p.conditions, f"{key}[{_described(p.conditions)}]") for p in params]


def _described(conditions: tuple[Condition, ...]) -> str:
    return ",".join(f"{c.key}{'!=' if c.negated else '='}{'|'.join(map(str, c.values))}" for c in conditions)


def _param(key: str, given: Any) -> Param:
    if not isinstance(given, dict):
        raise BadInput(f"'{key}' needs a domain such as {{choice: [a, b]}} or {{log_uniform: [low, high]}}")
    kinds = [name for name in given if name not in ("when", "unless")]
    if len(kinds) != 1 or kinds[0] not in DOMAINS:
        raise unknown(f"domain of '{key}':", ", ".join(map(str, kinds)) or "nothing", DOMAINS)
    domain = _domain(key, kinds[0], given[kinds[0]])
    conditions = _conditions(key, given.get("when"), False) + _conditions(key, given.get("unless"), True)
    return Param(key, domain, conditions, key)


def _domain(key: str, kind: str, values: Any) -> Domain:
    if kind == "choice":
        if not isinstance(values, list) or not values:
            raise BadInput(f"choice of '{key}' needs a list of at least one value, not {values!r}")
        checked = tuple(_checked(key, value) for value in values)
        if len(set(checked)) < len(checked):
            raise BadInput(f"choice of '{key}' names a value twice: {values}")
        return Choice(checked)
    if not isinstance(values, list) or len(values) != 2:
        raise BadInput(f"{kind} of '{key}' needs [low, high], not {values!r}")
    low, high = (_checked(key, value) for value in values)
    options = RANGES[kind]
    wanted = int if options["integer"] else float
    if not isinstance(low, wanted) or not isinstance(high, wanted):
        way_out = f"are whole numbers; use int_{kind}" if isinstance(low, int) else "are no numbers; use choice"
        raise BadInput(f"'{key}' cannot be searched with {kind}: its values {way_out}")
    if not low < high or (options["log"] and low <= 0):
        raise BadInput(f"{kind} of '{key}' needs {'0 < ' if options['log'] else ''}low < high, not {values}")
    return Range(low, high, **options)


def _conditions(key: str, given: Any, negated: bool) -> tuple[Condition, ...]:
    if given is None:
        return ()
    if not isinstance(given, dict):
        raise BadInput(f"condition of '{key}' is a mapping of key to value, not {given!r}")
    return tuple(
        Condition(other, tuple(_checked(other, v) for v in (value if isinstance(value, list) else [value])), negated)
        for other, value in given.items()
    )


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


def _check_values(params: tuple[Param, ...]) -> None:
    """A condition on a value that its key can never have would silently switch a param off."""
    for param in params:
        for condition in param.conditions:
            domains = [other.domain for other in params if other.key == condition.key]
            possible = [value for domain in domains if isinstance(domain, Choice) for value in domain.values]
            for value in condition.values:
                if domains and all(isinstance(d, Choice) for d in domains) and value not in possible:
                    raise unknown(f"value of '{condition.key}' in the condition of '{param.key}':", value, possible)
