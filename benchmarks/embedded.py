"""Linear probe, adapter alone and iDAT on the embedded tasks: `python -m benchmarks.embedded`."""

import statistics
import time

import torch

from idat_tune import data
from idat_tune.config import RunConfig
from idat_tune.run import evaluate, run, to_device

TASKS = ("digits", "sprites_loc", "sprites_ori")
SEEDS = (0, 1, 2)
WIDTH = {"adapter.hidden_dim": 8}
ALONE = {**WIDTH, "teacher": "none"}
ROWS = {
    "linear probe": {**ALONE, "adapter.kind": "linear"},
    "sequential alone": {**ALONE, "adapter.kind": "sequential"},
    "parallel alone": {**ALONE, "adapter.kind": "parallel"},
    "parallel shared alone": {**ALONE, "adapter.kind": "parallel_shared"},
    "iDAT-S kl": {**WIDTH, "adapter.kind": "sequential", "distill.loss": "kl"},
    "iDAT-S mse": {**WIDTH, "adapter.kind": "sequential", "distill.loss": "mse"},
}


def measured(task: str, changes: dict) -> tuple[list[float], float]:
    """Test accuracies in percent, one per seed, after training on all 1,000 images; mean CPU seconds of a run."""
    train, test = (data.load(task, split, 32, 1) for split in ("trainval", "test"))
    accuracies, began = [], time.process_time()
    for seed in SEEDS:
        training = run(RunConfig.for_task(task, {**changes, "seed": seed}), train)
        for _ in training:
            pass
        accuracies.append(100 * evaluate(training.student, [to_device(test, training.device)], training.config)[0])
    return accuracies, (time.process_time() - began) / len(SEEDS)


def main() -> None:
    torch.set_num_threads(1)
    print(f"| test accuracy, %, {len(SEEDS)} seeds | {' | '.join(TASKS)} | CPU s per run |")
    print("|---|" + "---|" * (len(TASKS) + 1))
    for name, changes in ROWS.items():
        found = {task: measured(task, changes) for task in TASKS}
        cells = [f"{statistics.fmean(a):.1f} ± {statistics.stdev(a):.1f}" for a, _ in found.values()]
        seconds = statistics.fmean(s for _, s in found.values())
        print(f"| {name} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
