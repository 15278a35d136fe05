"""What a search costs beside its training: `python -m benchmarks.overhead`."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from idat_tune.metrics import read_table

TASK, TRIALS = "sprites_loc", 16


def timed(*arguments: str) -> tuple[float, str]:
    """Wall seconds of an `idat-tune` command as a fresh process, and its stdout."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "idat_tune.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def main() -> None:
    help_seconds = statistics.median(timed("--help")[0] for _ in range(5))
    with tempfile.TemporaryDirectory() as out:
        wall, output = timed("search", "--task", TASK, "--trials", str(TRIALS), "--out", out, "--json")
        folder = Path(json.loads(output)["out"])
        rows = read_table(folder / "trials.parquet")
        records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    workers = {record["id"]: record["worker"] for record in records}
    first = {workers[row["trial"]]: row["trial"] for row in reversed(rows)}
    later = [row for row in rows if row["trial"] not in first.values()]
    beside = [row["seconds"] - row["training_seconds"] for row in later]
    training = sum(row["training_seconds"] for row in rows)
    epochs = sum(row["epochs_run"] for row in rows if row["stage"] == "explore")
    full = sum(row["epochs"] for row in rows if row["stage"] == "explore")
    print("| measured | |")
    print("|---|---|")
    print(f"| `idat-tune --help`, median of 5 | {help_seconds:.2f} s |")
    print(f"| search: {TASK}, {TRIALS} trials of 10 epochs, final runs, test, all included | {wall:.1f} s |")
    print(
        f"| of these, training in {len(first)} workers ({os.cpu_count()} cores), summed over both | {training:.1f} s |"
    )
    print(f"| epochs that halving let run | {epochs} of {full} |")
    print(f"| beside training, per trial after a worker's first: median | {statistics.median(beside):.2f} s |")
    print(f"| the same: largest | {max(beside):.2f} s |")


if __name__ == "__main__":
    main()
