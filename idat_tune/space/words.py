"""What people write who know another tool's search spaces, in the words of ours."""

from collections.abc import Mapping
from typing import Any

from idat_tune.errors import shown

RANGES = {
    "uniform": {"log": False, "integer": False},
    "log_uniform": {"log": True, "integer": False},
    "int_uniform": {"log": False, "integer": True},
    "int_log_uniform": {"log": True, "integer": True},
}
DOMAINS = ("choice", *RANGES)

_FOREIGN = {  # nni, Ray Tune, Optuna, Hyperopt, W&B, Ax
    "loguniform": "log_uniform",
    "log_uniform_values": "log_uniform",
    "qloguniform": "log_uniform",
    "quniform": "uniform",
    "float": "uniform",
    "range": "uniform",
    "int": "int_uniform",
    "integer": "int_uniform",
    "randint": "int_uniform",
    "lograndint": "int_log_uniform",
    "qrandint": "int_uniform",
    "categorical": "choice",
    "values": "choice",
    "choices": "choice",
    "grid_search": "choice",
    "grid": "choice",
    "options": "choice",
}
_KINDS = ("_type", "type", "distribution", "domain", "sampler")
_BOUNDS = (("min", "max"), ("low", "high"), ("lower", "upper"), ("start", "end"), ("minimum", "maximum"))
_LISTS = ("_value", "values", "value", "bounds", "range", "choices")


def ours(given: Any, whole: bool) -> str | None:
    """How a domain of another tool is written here, as YAML; None if it is not understood.

    Args:
        given: what stands in the place of a domain.
        whole: whether the key takes whole numbers, so that a range of it has whole bounds.
    """
    if isinstance(given, str | int | float | bool):
        return _written("choice", [given])
    if isinstance(given, list):
        return _written("choice", given) if given and not any(isinstance(v, dict | list) for v in given) else None
    if not isinstance(given, Mapping):
        return None
    named = [_FOREIGN.get(str(key).lower(), key) for key in given]
    if len(given) == 1 and named[0] in DOMAINS:
        return _written(str(named[0]), next(iter(given.values())))
    stated = next((str(given[key]).lower() for key in _KINDS if key in given), "")
    kind = _FOREIGN.get(stated, stated)
    values = next((given[key] for key in _LISTS if key in given), None)
    bounds = next(([given[low], given[high]] for low, high in _BOUNDS if low in given and high in given), None)
    if bounds:
        values, kind = bounds, kind if kind in RANGES else "uniform"
    if values is None:
        return None
    kind = kind if kind in DOMAINS else "choice"
    if given.get("log") is True and "log" not in kind:
        kind = kind.replace("uniform", "log_uniform")
    if whole and kind in RANGES and not kind.startswith("int_"):
        kind = f"int_{kind}"
    return _written(kind, values)


def _written(kind: str, values: Any) -> str:
    listed = ", ".join(map(str, values)) if isinstance(values, list) else str(values)
    return f"{{{kind}: [{shown(listed)}]}}"
