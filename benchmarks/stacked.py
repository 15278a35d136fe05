"""Whole searches with a worker for each trial and with stacked trials: `python -m benchmarks.stacked [--trials N]`."""

import argparse
import tempfile
import time
from typing import Any

from idat_tune import space as spaces
from idat_tune.search import search
from idat_tune.space import Space

ONE_SHAPE = {
    "params": {
        "adapter.scale": {"log_uniform": [0.05, 10]},
        "distill.temperature": {"uniform": [2, 10]},
        "distill.weight": {"log_uniform": [0.1, 100]},
        "optim.lr": {"log_uniform": [1e-3, 5e-2]},
    },
    "fixed": {
        "adapter.kind": "parallel",
        "adapter.hidden_dim": 8,
        "teacher": "glyph_small",
        "distill.loss": "kl",
    },
}


def wall(space: Space, stacked: int, trials: int) -> tuple[float, dict[str, Any]]:
    """Wall seconds of a search, and its result."""
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        found = search(
            "sprites_loc",
            space=space,
            trials=trials,
            fixed={"epochs": 20},
            stopping="none",
            folds=2,
            stacked=stacked,
            out=out,
        )
        return time.perf_counter() - began, found


def main() -> None:
    """Print a row per search, as Markdown."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--trials", type=int, default=64)
    given = arguments.parse_args()
    print("| space | stacked | wall s | winner on test |\n|---|---:|---:|---:|")
    made = {"one shape": spaces.parse(ONE_SHAPE, "one shape"), "embedded": spaces.load("embedded")}
    for stacked in (1, 4):
        for name, space in made.items():
            seconds, found = wall(space, stacked, given.trials)
            accuracy = found["winner"]["test_accuracy"]["mean"]
            print(f"| {name} | {stacked} | {seconds:.0f} | {100 * accuracy:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
