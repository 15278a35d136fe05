"""A search space as a value: what it proposes, and what of a config lies in it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.recipes import KIND
from idat_tune.space.domains import Ask, Choice, Domain, Param


def checked(key: Any, value: Any) -> Any:
    """The value of a key as RunConfig understands it; text that is a number becomes one.

    Raises:
        BadInput: an unknown key, one that is no business of a space, or a value that RunConfig refuses.
    """
    known(key)
    # Alone among defaults, and with so many epochs that no warm-up is too long: only the value itself is judged.
    others = {"epochs": 10**6} if key != "epochs" else {"optim.warmup_epochs": 0}
    return RunConfig.from_flat({"task": "dtd", **others, key: value}).flat()[key]


def known(key: Any) -> str:
    """The key itself, if a space may set it.

    Raises:
        BadInput: it may not.
    """
    if key == "task":
        raise BadInput("'task' is chosen with --task, not in a space")
    RunConfig.check_key(key)
    return str(key)


@dataclass(frozen=True)
class Space:
    """What a search may try: domains in an order in which conditions come after what they ask about."""

    name: str
    params: tuple[Param, ...]
    fixed: tuple[tuple[str, Any], ...] = ()
    start: tuple[tuple[tuple[str, Any], ...], ...] = ()
    arms: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()  # by name, what is run and tested in any case

    def propose(self, ask: Ask) -> dict[str, Any]:
        """One point as a flat mapping: fixed keys, and every active param's value from `ask(label, domain)`."""
        chosen = dict(self.fixed)
        for param in self.params:
            if param.key not in chosen and param.active(chosen):
                chosen[param.key] = ask(param.label, param.domain)
        return chosen

    def with_fixed(self, fixed: Mapping[str, Any]) -> Self:
        """The space with some keys held at a value: they are not searched any more.

        Raises:
            BadInput: a value is none, or would make another kind of adapter of an arm that is named for its own.
        """
        fixed = {key: checked(key, value) for key, value in fixed.items()}
        held = {**dict(self.fixed), **fixed}
        params = tuple(param for param in self.params if param.key not in fixed)
        start = tuple(tuple({**dict(point), **fixed}.items()) for point in self.start)
        for name, point in self.arms:
            kind = dict(point).get(KIND)
            if None not in (kind, fixed.get(KIND)) and kind != fixed[KIND]:
                raise BadInput(
                    f"arm '{name}' of space '{self.name}' has {KIND} {kind}, and {fixed[KIND]} is held by --set or "
                    "--recipe; leave that away, or take another space"
                )
        arms = tuple((name, tuple({**dict(point), **fixed}.items())) for name, point in self.arms)
        return type(self)(self.name, params, tuple(held.items()), start, arms)

    def without_values(self, key: str, gone: Collection[Any]) -> Self:
        """The space without some values of a choice; where none is left the key is not searched."""
        params = [_narrowed(param, gone) if param.key == key else param for param in self.params]
        start = tuple(point for point in self.start if dict(point).get(key) not in gone)
        return replace(self, params=tuple(filter(None, params)), start=start)

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
        return value in next(param.domain for param in self.params if param.label == label)

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

    def written(self) -> dict[str, Any]:
        """The mapping that a space file would hold; `parse` gives the same space back."""
        params: dict[str, Any] = {}
        for param in self.params:
            params.setdefault(param.key, []).append(param.written())
        single = {key: domains[0] if len(domains) == 1 else domains for key, domains in params.items()}
        start = [dict(point) for point in self.start]
        written = {"name": self.name, "params": single, "fixed": dict(self.fixed), "start": start}
        # Not where there are none: so say the manifests of before there were any.
        return written | ({"arms": {name: dict(point) for name, point in self.arms}} if self.arms else {})


def _narrowed(param: Param, gone: Collection[Any]) -> Param | None:
    """A choice without some values; None if nothing is left."""
    assert isinstance(param.domain, Choice)
    left = tuple(value for value in param.domain.values if value not in gone)
    return replace(param, domain=Choice(left)) if left else None
