"""A made-up table of learning curves with a known best config, for tests of replaying."""

import math
import random

from benchmarks import record
from idat_tune import space
from idat_tune.config import RunConfig
from idat_tune.replay import table

EPOCHS = 10


def quality(config):
    """Test accuracy: best at learning rate 0.012, better with wider adapters, worse beside the block than behind it."""
    lr = 0.05 * math.log(config.optim.lr / 1.2e-2) ** 2
    width = 0.025 * math.log2(config.adapter.hidden_dim / 4)
    return 0.8 - lr + width - 0.05 * (config.adapter.kind != "sequential")


def recordings(tasks=("digits", "sprites_loc"), configs=60, folds=5, noise=0.02):
    """Curves of the arms and some random configs; validation scatters, by run and by epoch."""
    searched, scatter = space.load(record.SPACE), random.Random(1)
    random_points = {f"random-{number:03d}": point for number, point in enumerate(record.points(searched, configs))}
    for task in tasks:
        for name, changes in {**record.arms(task, searched), **random_points}.items():
            config = RunConfig.for_task(task, changes)
            for fold in range(folds):
                yield _run(task, name, fold, config, record.active(config, searched), scatter, noise)


def _run(task, name, fold, config, point, scatter, noise):
    end = quality(config) + scatter.gauss(0, noise)
    growing = [end * (1 - 0.6 * math.exp(-epoch / 2)) + scatter.gauss(0, noise / 2) for epoch in range(EPOCHS)]
    accuracies = tuple(round(min(max(value, 0), 1) * table.VAL_IMAGES) / table.VAL_IMAGES for value in growing)
    losses = tuple(1.5 - value for value in accuracies)
    params = 1000 + 100 * config.adapter.hidden_dim
    return table.RecordedRun(task, name, fold, point, params, 2.0, accuracies, losses, quality(config), 0.5)
