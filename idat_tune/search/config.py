"""SearchConfig: one search as a frozen, validated value with dotted keys."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from idat_tune import reading, recipes, tasks
from idat_tune.errors import BadInput, shown, unknown
from idat_tune.settings import Settings
from idat_tune.space import Space, checked

PLACE = ("name", "out", "storage")
FILE = "search.yaml"  # in the search folder

SAMPLERS = TPE, RANDOM, GRID, GP = ("tpe", "random", "grid", "gp")
RULES = HALVING, MEDIAN, NONE = ("halving", "median", "none")  # which end proposed trials early

MOST_STACKED = 16
MOST_TASKS = 64  # at once; each has a process of about a GB that drives it
MOST = 100_000  # trials or seeds: what is more is a slip
MOST_FOLDS = 100
LONGEST_NAME = 150  # bytes; several tasks at once add theirs


def check_name(name: str) -> str:
    """The name of a search, if it can be that of its folder under --out, and of nothing else there.

    Raises:
        BadInput: says what is wrong with it.
    """
    wrong = ""
    if not re.fullmatch(r"\w([\w.-]*\w)?", name):
        wrong = "it names a folder, of letters, digits, '-', '_' and '.', with a letter or digit at both ends"
    elif len(name.encode()) > LONGEST_NAME:
        wrong = f"it names a folder and has {len(name.encode())} bytes; {LONGEST_NAME} is the most"
    elif re.match(r"(artifacts$|mlflow\.db|.*\.parquet$)", name, re.IGNORECASE):
        wrong = "a file or folder of that name belongs to all searches under --out"
    if wrong:
        raise BadInput(f"--name cannot be '{shown(name, 40)}': {wrong}; give another")
    return name


def _check_count(option: str, value: int, least: int = 1) -> None:
    if value < least:
        raise BadInput(f"{option} cannot be {shown(value)}: a search needs at least {least}")
    if value > MOST:
        raise BadInput(f"{option} cannot be {shown(value)}: a search takes at most {MOST:,}")


def _check_limits(limits: Mapping[str, float | None]) -> None:
    for option, value in limits.items():
        if value is not None and not 0 < value <= MOST:
            raise BadInput(f"{option} cannot be {shown(value)}: it must be greater than 0, and at most {MOST:,}")


class ExploreConfig(Settings):
    """What is proposed, and when that ends: at whichever limit comes first."""

    trials: int = Field(32, description="to explore, arms included; the arms always run, and with 0 nothing else")
    hours: float | None = Field(None, description="after which nothing new is proposed; later stages come on top")
    gpu_hours: float | None = Field(None, description="the same, summed over the GPUs that explored trials take")
    patience: int | None = Field(None, description="trials in a row that may bring nothing beyond the noise")
    sampler: Literal["tpe", "random", "grid", "gp"] = Field("tpe", description="what proposes trials")
    stopping: Literal["halving", "median", "none"] = Field("halving", description="which of them end early")

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        _check_count("--trials", self.trials, least=0)
        _check_limits({"--hours": self.hours, "--gpu-hours": self.gpu_hours, "--patience": self.patience})
        return self

    @model_validator(mode="before")
    @classmethod
    def _known_ways(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, known in (("sampler", SAMPLERS), ("stopping", RULES)):
            if given.get(name, known[0]) not in known:
                raise unknown(f"--{name}", given[name], known)
        return given


class ConfirmConfig(Settings):
    """How the best explored configs and the arms are compared; chosen by measurement, see benchmarks/defaults.md."""

    top_k: int = Field(2, description="best explored configs that are confirmed, beside the arms")
    folds: int = Field(5, description="splits that they are confirmed on; 0 leaves the stage out")

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        _check_count("--top-k", self.top_k)
        if self.folds < 0 or self.folds == 1:
            raise BadInput(f"--folds cannot be {self.folds}: noise shows from 2 on; --no-confirm leaves the stage out")
        if self.folds > MOST_FOLDS:
            raise BadInput(f"--folds cannot be {self.folds}: a search takes at most {MOST_FOLDS}")
        return self


class FinalConfig(Settings):
    """The trainings on all training images, and the test."""

    seeds: int = Field(3, description="runs of the winner")
    reopen_test: bool = Field(False, description="go on though the test was opened before, and open it again; recorded")

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        _check_count("--seeds", self.seeds)
        return self


class ResourcesConfig(Settings):
    """Where the trials run."""

    gpus_per_trial: float | None = Field(None, description="1 where there are GPUs, unless given")
    max_concurrent: int | None = Field(None, description="as many as cores or GPUs, unless given")
    stacked: int = Field(1, description="an experiment: trials at once in every process; equal shapes train as one")
    address: str | None = Field(None, description="of a Ray cluster, HOST:PORT, auto or local; else a head's own")
    parallel_tasks: int = Field(1, description="of several tasks, so many at once, each with its part of the rest")

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        _check_limits({"--gpus-per-trial": self.gpus_per_trial, "--max-concurrent": self.max_concurrent})
        if not 1 <= self.parallel_tasks <= MOST_TASKS:
            raise BadInput(f"--parallel-tasks must be from 1 to {MOST_TASKS}, not {self.parallel_tasks}")
        if not 1 <= self.stacked <= MOST_STACKED:
            raise BadInput(f"--stacked must be from 1 to {MOST_STACKED}, not {self.stacked}")
        if self.stacked > 1 and self.gpus_per_trial is not None:
            raise BadInput(
                "--stacked lets so many trials share the process, and the GPU, of one; leave --gpus-per-trial away"
            )
        return self


class SearchConfig(Settings):
    """One search over one task: what it tries, how it chooses, and where it runs.

    Written and read as a flat mapping with dotted keys, such as `{"task": "dtd", "explore.trials": 64}`; the command
    line and `search()` know each of them by its last word (`--trials`, `trials=64`).
    """

    WHOLE: ClassVar[tuple[str, ...]] = ("space", "fixed", "hints")

    task: str
    space: str | dict[str, Any] | None = Field(
        None, description="name, YAML file, or mapping as in such a file; `embedded` or `idat` unless given"
    )
    recipe: str | None = Field(
        None, description="published settings of a kind, which is held; what the space searches of the rest is searched"
    )
    fixed: dict[str, Any] = Field({}, description="dotted keys of a run, held at a value for all trials")
    hints: dict[str, dict[str, Any]] | None = Field(
        None, description="points to try after the arms, by trial id; what is known to be good elsewhere unless given"
    )
    seed: int = Field(0, description="of the sampler and of every explored run")
    explore: ExploreConfig = ExploreConfig()
    confirm: ConfirmConfig = ConfirmConfig()
    final: FinalConfig = FinalConfig()
    resources: ResourcesConfig = ResourcesConfig()
    out: str = Field("runs", description="folder of all searches and of the tracking store")
    name: str | None = Field(None, description="of the search and its folder; <task>-<number> unless given")
    storage: str | None = Field(None, description="place that the search is copied to, and can be resumed from: a URI")

    @field_validator("task")
    @classmethod
    def _canonical_task(cls, name: str) -> str:
        return tasks.get(name).name

    @field_validator("space", mode="before")
    @classmethod
    def _as_written(cls, space: object) -> object:
        return space.written() if isinstance(space, Space) else str(space) if isinstance(space, Path) else space

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, name: str | None) -> str | None:
        if name is not None:
            recipes.get(name)
        return name

    @field_validator("fixed")
    @classmethod
    def _held(cls, fixed: dict[str, Any]) -> dict[str, Any]:
        return _settings(fixed)

    @field_validator("hints")
    @classmethod
    def _tried(cls, hints: dict[str, dict[str, Any]] | None) -> dict[str, dict[str, Any]] | None:
        return hints and {name: _settings(point) for name, point in hints.items()}

    @field_validator("out", mode="before")
    @classmethod
    def _as_text(cls, out: object) -> object:
        return str(out) if isinstance(out, Path) else out

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str | None) -> str | None:
        return name if name is None else check_name(name)

    @model_validator(mode="after")
    def _seeds_count_on(self) -> Self:
        largest = 2**31 - 1 - max(self.confirm.folds, self.final.seeds)
        if not 0 <= self.seed <= largest:
            raise BadInput(f"--seed cannot be {self.seed}: it goes from 0 to {largest}")
        return self

    @classmethod
    def of(cls, task: str, **options: Any) -> Self:
        """The config of a task, with options by the last words of their keys; `fixed` may be any mapping.

        Raises:
            BadInput: an unknown option, or a value that is out of range.
        """
        return cls.from_flat({"task": task, **by_key(options)})


def _settings(point: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys of a run with values as RunConfig understands them."""
    return {key: checked(key, value) for key, value in point.items()}


def by_key(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options such as `trials`, each under its dotted key.

    Raises:
        BadInput: one is unknown; with the nearest known one.
    """
    known = {key.rpartition(".")[2]: key for key in SearchConfig.all_keys()}
    for name in options:
        if name not in known:
            raise unknown("option of a search", name, known)
    return {known[name]: dict(value) if name == "fixed" else value for name, value in options.items()}


def read(path: Path) -> dict[str, Any]:
    """The flat mapping that a YAML file of a search holds; a section may be a mapping of its own.

    Raises:
        BadInput: it cannot be read, is no mapping, or has an unknown key; names the file.
    """
    try:
        return _flattened(reading.yaml_value(reading.text(path, "search file")))
    except BadInput as failure:
        raise BadInput(f"search file {path}: {failure}") from None


def write(path: Path, config: SearchConfig) -> None:
    """Write a config as YAML, so that `read` gives it back but for its place; what has no value is left away."""
    given = {key: value for key, value in config.flat().items() if value is not None and key not in PLACE}
    about = f"idat-tune search --config {path.name} does this search once more"
    text = yaml.safe_dump(given, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    partial = path.with_suffix(".partial")
    partial.write_text(f"# {about}\n{text}")
    partial.replace(path)


def _flattened(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise BadInput(f"it holds a mapping of key to value, such as `explore.trials: 64`, not {shown(content)}")
    flat: dict[str, Any] = {}
    for key, value in content.items():
        inside = key in SearchConfig.model_fields and key not in SearchConfig.all_keys() and isinstance(value, dict)
        for name, one in {f"{key}.{word}": one for word, one in value.items()}.items() if inside else [(key, value)]:
            SearchConfig.check_key(name)
            if name in flat:
                raise BadInput(f"{name} is given twice; keep one of {shown(flat[name])} and {shown(one)}")
            flat[name] = one
    return flat
