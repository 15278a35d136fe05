"""What a search costs beside its training: `python -m benchmarks.overhead`."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import mlflow

from idat_tune.metrics import read_table
from idat_tune.tracking import PARENT

SEARCHES = (
    ("digits", "--trials", "16"),
    ("sprites_loc", "--trials", "16"),
    ("sprites_ori", "--trials", "16"),
    ("sprites_loc", "--trials", "24", "--epochs", "80", "--no-confirm"),  # trials of 10 s and more
)


def timed(*arguments: str) -> tuple[float, str]:
    """Wall seconds of an `idat-tune` command as a fresh process, and its stdout."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "idat_tune.cli", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def between_first_and_last(result: dict[str, Any]) -> float:
    """Seconds from the first proposal to the end of the last training, by the clock of the tracked runs."""
    client = mlflow.MlflowClient(result["tracking_uri"])
    experiment = client.get_experiment_by_name(f"idat-tune/{result['task']}").experiment_id
    runs = [run.info for run in client.search_runs([experiment], max_results=5000) if PARENT in run.data.tags]
    return (max(run.end_time for run in runs) - min(run.start_time for run in runs)) / 1000


def search(options: Sequence[str]) -> dict[str, Any]:
    """What a search took, in seconds, and what of that was training."""
    with tempfile.TemporaryDirectory() as out:
        wall, output = timed("search", "--task", *options, "--out", out, "--json")
        result = json.loads(output)
        rows = read_table(f"{result['out']}/trials.parquet")
        with open(f"{result['out']}/journal.jsonl") as journal:  # noqa: PTH123
            lines = [json.loads(line) for line in journal]
            worker = {line["id"]: line["worker"] for line in lines if "decision" not in line}
        steady = between_first_and_last(result)
    first = {worker[row["trial"]]: row for row in reversed(rows)}.values()
    imports = min(row["seconds"] - row["training_seconds"] - row["set_up_seconds"] for row in first)
    later = [row for row in rows if row not in first]
    workers, training = len(first), sum(row["training_seconds"] for row in rows)
    whole = [row["seconds"] for row in later if row["epochs_run"] == row["epochs"]]
    return {
        "runs": len(rows),
        "workers": workers,
        "run": statistics.median(whole),
        "training": training / workers,
        "wall": wall,
        "overhead": wall * workers / training - 1,
        "steady": (steady - imports) * workers / training - 1,
        "beside": statistics.median(row["seconds"] - row["training_seconds"] for row in later),
    }


def main() -> None:
    help_seconds = statistics.median(timed("--help")[0] for _ in range(5))
    print(f"`idat-tune --help`, median of 5: {help_seconds:.2f} s; {os.cpu_count()} cores\n")
    print(
        "| search | runs, workers | s per whole run | training s per worker | s in all | overhead | after the first "
        "trial began | s beside training, per run |\n|---|---|---|---|---|---|---|---|"
    )
    for options in SEARCHES:
        found = search(options)
        figures = (
            " ".join(options),
            f"{found['runs']}, {found['workers']}",
            f"{found['run']:.1f}",
            f"{found['training']:.1f}",
            f"{found['wall']:.1f}",
            f"{100 * found['overhead']:.0f} %",
            f"{100 * found['steady']:.1f} %",
            f"{found['beside']:.2f}",
        )
        print(f"| {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
