"""What may be asked of a search: its name, its numbers, how it proposes and stops, machines and hours."""

import re
from dataclasses import dataclass

from idat_tune.errors import BadInput, shown, unknown

TOP_K, FOLDS = 2, 5  # of the confirm stage; chosen by measurement, see benchmarks/defaults.md

SAMPLERS = TPE, RANDOM, GRID, GP = ("tpe", "random", "grid", "gp")
RULES = HALVING, MEDIAN, NONE = ("halving", "median", "none")  # which end proposed trials early

MOST_STACKED = 16
MOST = 100_000  # trials or seeds: what is more is a slip
MOST_FOLDS = 100
LONGEST_NAME = 150  # bytes; several tasks at once add theirs


def check_name(name: str) -> None:
    """Refuse a name of a search that cannot be that of its folder under --out, or is that of something else there.

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


def check_numbers(trials: int, final_seeds: int, top_k: int, folds: int, seed: int) -> None:
    """Refuse numbers out of range.

    Raises:
        BadInput: naming the option.
    """
    for what, value in (("--trials", trials), ("--seeds", final_seeds), ("--top-k", top_k)):
        if value < 1:
            raise BadInput(f"{what} cannot be {value}: a search needs at least 1")
        if value > MOST:
            raise BadInput(f"{what} cannot be {value}: a search takes at most {MOST:,}")
    if folds < 0 or folds == 1:
        raise BadInput(f"--folds cannot be {folds}: noise shows from 2 on; --no-confirm leaves the stage out")
    if folds > MOST_FOLDS:
        raise BadInput(f"--folds cannot be {folds}: a search takes at most {MOST_FOLDS}")
    largest = 2**31 - 1 - max(folds, final_seeds)  # seeds count on from it
    if not 0 <= seed <= largest:
        raise BadInput(f"--seed cannot be {seed}: it goes from 0 to {largest}")


def check_ways(sampler: str, stopping: str) -> None:
    """Refuse a sampler or a stopping rule that nobody knows.

    Raises:
        BadInput: with the nearest known one.
    """
    for what, chosen, known in (("--sampler", sampler, SAMPLERS), ("--stopping", stopping, RULES)):
        if chosen not in known:
            raise unknown(what, chosen, known)


@dataclass(frozen=True)
class Resources:
    """Where and how long a search may run."""

    hours: float | None = None  # of exploring, after which no new trial is proposed
    gpus_per_trial: float | None = None  # 1 where there are GPUs, unless given
    max_concurrent: int | None = None  # as many as cores or GPUs, unless given
    address: str | None = None  # of a Ray cluster; one is started here unless given
    gpu_hours: float | None = None  # of exploring, summed over trials and GPUs
    patience: int | None = None  # trials in a row that may bring nothing beyond the noise
    stacked: int = 1  # trials at once in every process that trains

    def __post_init__(self) -> None:
        limits = {"--hours": self.hours, "--gpu-hours": self.gpu_hours, "--gpus-per-trial": self.gpus_per_trial}
        counts = {"--patience": self.patience, "--max-concurrent": self.max_concurrent}
        for option, value in {**limits, **counts}.items():
            if value is not None and not 0 < value <= MOST:
                raise BadInput(f"{option} cannot be {shown(value)}: it must be greater than 0, and at most {MOST:,}")
        if not 1 <= self.stacked <= MOST_STACKED:
            raise BadInput(f"--stacked must be from 1 to {MOST_STACKED}, not {self.stacked}")
        if self.stacked > 1 and self.gpus_per_trial is not None:
            raise BadInput(
                "--stacked lets so many trials share the process, and the GPU, of one; leave --gpus-per-trial away"
            )
