"""How far `idat-tune search --dry-run` is off: `python -m benchmarks.estimate`."""

import json
import subprocess
import sys
import tempfile
import time
from typing import Any

TASKS, TRIALS = ("digits", "sprites_loc", "sprites_ori"), 16


def timed(*arguments: str) -> tuple[float, dict[str, Any]]:
    """Wall seconds of an `idat-tune search` as a fresh process, and its JSON."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "idat_tune.cli", "search", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return time.perf_counter() - began, json.loads(done.stdout)


def epochs_of(folder: str) -> dict[str, int]:
    """Epochs that a search ran, by stage."""
    from idat_tune.metrics import read_table

    found: dict[str, int] = {}
    for row in read_table(f"{folder}/trials.parquet"):
        found[row["stage"]] = found.get(row["stage"], 0) + row["epochs_run"]
    return found


def row(task: str, *options: str) -> str:
    with tempfile.TemporaryDirectory() as out:
        arguments = ["--task", task, "--trials", str(TRIALS), "--out", out, *options]
        dry, estimate = timed(*arguments, "--dry-run")
        real, result = timed(*arguments)
        epochs = epochs_of(result["out"])
    foreseen = 3600 * estimate["hours"]
    counts = [
        f"{estimate['epochs'].get(stage, 0):.0f} / {epochs.get(stage, 0)}" for stage in ("explore", "confirm", "final")
    ]
    error = f"{100 * (foreseen / real - 1):+.0f} %"
    return f"| {task} {' '.join(options)} | {dry:.0f} | {foreseen:.0f} | {real:.0f} | {error} | {' | '.join(counts)} |"


def main() -> None:
    print(
        "| | s of the dry run | s foreseen | s in reality | error | epochs foreseen / run: explore | confirm | final |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for task in TASKS:
        print(row(task, *sys.argv[1:]), flush=True)


if __name__ == "__main__":
    main()
