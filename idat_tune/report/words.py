"""Figures as a person says them, the same on the page, in the verdict and on the terminal."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idat_tune.backbones import NO_TEACHER
from idat_tune.kinds import KINDS

NAMES = {
    "winner": "the winner",
    "default": "the default",
    "alone": "the default, no teacher",
    "no_distill": "the default, no distillation",
    "linear": "a linear head",
    "winner_alone": "the winner, no teacher",
    "winner_with_teacher": "the winner with a teacher",
}
# What stands for it in pictures; whatever is none of these has no name of its own.
TONES = {
    "winner": "winner",
    "default": "default",
    "alone": "alone",
    "no_distill": "alone",
    "linear": "linear",
    "winner_alone": "other",
    "winner_with_teacher": "other",
}


def called(name: str) -> str:
    """What a contender is called; an arm that a space names goes by that name."""
    return NAMES.get(name, name)


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as percent, or a dash where there is none."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f} %"


def points(fraction: float) -> str:
    """A difference of two fractions in percent points, with its sign."""
    return f"{100 * fraction:+.2f}"


def accuracy(fraction: float | None) -> str:
    """A fraction as percent with the digits of `points`, so that differences can be checked."""
    return percent(fraction, 2)


def spread(found: Mapping[str, Any] | None) -> str:
    """Mean and standard deviation over seeds, or a dash."""
    if found is None:
        return "-"
    return _beside(found["mean"], found["std"])


def on_splits(found: Mapping[str, Any] | None) -> str:
    """Mean and standard error over the splits of the confirm stage, or a dash."""
    if found is None:
        return "-"
    return _beside(found["mean"], found["standard_error"])


def _beside(mean: float, error: float | None) -> str:
    return accuracy(mean) if error is None else f"{100 * mean:.2f} ± {100 * error:.2f} %"


def interval(found: Mapping[str, Any]) -> str:
    """The bounds of a comparison, `+0.50 to +4.10`, or why there are none."""
    if found["interval"] is None:
        return f"{pairs(found)}: too few {_unit(found)}s for an interval"
    low, high = found["interval"]
    return f"{points(low)} to {points(high)}"


def pairs(found: Mapping[str, Any]) -> str:
    """How many pairs of runs a comparison rests on."""
    return plural(found["pairs"], _unit(found))


def _unit(found: Mapping[str, Any]) -> str:
    return "split" if found["split"] == "confirm" else "seed"


def compared(found: Mapping[str, Any], chosen: bool = False) -> str:
    """A comparison in words; of figures that a choice was made by (`chosen`) nothing is claimed."""
    if found["interval"] is None:
        return f"{points(found['mean'])} points ({interval(found)})"
    noise = "" if found["reliable"] or chosen else "; within the noise"
    return f"{points(found['mean'])} points (95 % interval {interval(found)}, {pairs(found)}{noise})"


def plural(count: int, what: str) -> str:
    """`1 seed`, `3 seeds`, `1,000 images`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def value(setting: object) -> str:
    """A setting's value, short."""
    if isinstance(setting, float) and math.isfinite(setting):
        return f"{setting:.3g}"
    return str(setting)


def path(place: Path) -> str:
    """A path as it is said from here: relative, if it lies below."""
    here, there = Path.cwd(), place.absolute()
    return str(there.relative_to(here) if there.is_relative_to(here) else there)


def typed(place: Path) -> str:
    """The same as a word of a command line."""
    return shlex.quote(path(place))


def brief(config: Mapping[str, Any]) -> str:
    """The searched settings of a flat config in one short line, only those that it uses."""
    used = KINDS[config["adapter.kind"]].uses
    parts = [str(config["adapter.kind"])]
    if "adapter.targets" in used:
        parts.append(str(config.get("adapter.targets", "qv")))
    if "adapter.hidden_dim" in used:
        parts.append(f"h={config['adapter.hidden_dim']}")
    if "adapter.scale" in used:
        parts.append(f"s={config['adapter.scale']:.3g}")
    if config.get("gist.token"):
        parts.append("gist")
    if config.get("pace.weight"):
        parts.append(f"pace={config['pace.weight']:.3g}")
    parts.append(f"lr={config['optim.lr']:.2g}")
    if config["teacher"] == NO_TEACHER:
        return " ".join([*parts, "alone"])
    parts += [f"teacher={config['teacher']}", str(config["distill.loss"])]
    if config["distill.loss"] == "kl":
        parts.append(f"T={config['distill.temperature']:.3g}")
    return " ".join([*parts, f"lambda={config['distill.weight']:.3g}"])
