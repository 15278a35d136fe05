"""What searches of many tasks might have come to, out of a seeded generator: results as `search --json` prints them."""

import random

from idat_tune import tasks
from idat_tune.config import RunConfig
from idat_tune.report.published import ORDER, TABLE

PAPER = next(row for row in TABLE if row.method == "iDAT-S-kl").accuracy
KINDS = ("sequential", "parallel", "parallel_shared")


def result(task, seed=0, name=None, won="winner", seeds=3, gain=None, opened=1):
    """A result; `won` is winner, alone (a winner without a teacher), default, linear, or nobody."""
    draw = random.Random(f"{task} {seed}")
    known = tasks.find(task)
    like = known.name if known and known.group != "own" else "dtd"
    config = RunConfig.for_task(like)
    base = draw.gauss(PAPER.get(like, 80.0), 1.0) / 100
    gain = draw.gauss(0.015, 0.015) if gain is None else gain
    teacher = draw.gauss(0.005, 0.01)
    tuned = {
        "adapter.kind": draw.choice(KINDS),
        "adapter.hidden_dim": draw.choice((4, 8, 16, 32, 64)),
        "adapter.scale": round(10 ** draw.uniform(-1, 0.5), 3),
        "distill.loss": draw.choice(("kl", "mse")),
        "distill.weight": round(10 ** draw.uniform(-0.5, 1.5), 3),
        "distill.temperature": round(draw.uniform(2, 10), 2),
        "optim.lr": round(10 ** draw.uniform(-3.5, -1.5), 5),
    }

    def contender(trial, accuracy, params, seconds, **changes):
        accuracy = min(max(accuracy, 0.01), 0.999)
        flat = config.updated({key.replace("__", "."): value for key, value in changes.items()}).flat()
        spread = draw.uniform(0.001, 0.01) if seeds > 1 else None
        return {
            "trial": trial,
            "config": {**flat, "task": task},
            "status": "complete",
            "val_accuracy": round(min(accuracy + draw.gauss(0.01, 0.01), 1.0) * 200) / 200,
            "confirmed": {"mean": accuracy - 0.01, "standard_error": draw.uniform(0.005, 0.02), "folds": 5},
            "test_accuracy": {"mean": accuracy, "std": spread, "seeds": seeds},
            "trainable_params": params,
            "training_seconds": seconds,
        }

    head = config.classes * 769
    few = 82_992 + head
    many = 12 * (2 * 768 * tuned["adapter.hidden_dim"] + 768 + tuned["adapter.hidden_dim"]) + head
    changes = {key.replace(".", "__"): value for key, value in tuned.items()}
    arms = {
        "default": contender("arm-default", base, few, 14.2),
        "alone": contender("arm-alone", base - draw.gauss(0.004, 0.006), few, 9.1, teacher="none"),
        "no_distill": {**contender("arm-no_distill", base, few, None, distill__weight=0.0), "test_accuracy": None},
        "linear": contender("arm-linear-1", base - draw.uniform(0, 0.2), head, 1.3, adapter__kind="linear"),
    }
    winner = {
        "winner": lambda: contender("trial-007", base + gain, many, draw.uniform(12, 30), **changes),
        "alone": lambda: contender("trial-009-alone", base + gain, many, 10.0, **changes, teacher="none"),
        "default": lambda: arms["default"],
        "linear": lambda: arms["linear"],
        "nobody": lambda: None,
    }[won]()
    if won == "winner":
        arms["winner_alone"] = contender("trial-007-alone", base + gain - teacher, many, 9.9, **changes, teacher="none")
    if won == "alone":
        arms["winner_with_teacher"] = contender("trial-009", base + gain - 0.01, many, 17.0, **changes)
    found = {"winner": winner, **arms}
    pairs = [("winner", "default"), ("winner", "winner_alone"), ("winner_with_teacher", "winner")]
    pairs += [("winner", "linear"), ("default", "alone")]
    comparisons = [
        compared(draw, found, ours, theirs, split, seeds)
        for ours, theirs in pairs
        for split in ("confirm", "test")
        if found.get(ours) and found.get(theirs) and found[ours]["trial"] != found[theirs]["trial"]
    ]
    rows = {}
    for one, about in found.items():
        if about:
            against = {"confirm": None, "test": None}
            if about["trial"] != "arm-default" and about["test_accuracy"]:
                against["test"] = compared(draw, found, one, "default", "test", seeds)
            rows.setdefault(about["trial"], {**about, "names": [], "minus_default": against})["names"].append(one)
    return {
        "name": name or f"tasks-1-{task}",
        "task": task,
        "trials": {"complete": draw.randint(8, 20), "stopped": draw.randint(5, 20), "failed": draw.choice((0, 0, 2))},
        "ended_by": "trials",
        "winner": winner,
        "arms": arms,
        "contenders": sorted(rows.values(), key=lambda row: -row["confirmed"]["mean"]),
        "comparisons": comparisons,
        "smallest": None,
        "teacher_cost": {"time": draw.uniform(1.3, 1.9), "memory": 1.6, "memory_measured": True},
        "together": None,
        "verdict": f"The words on {task}." if winner else "no config got through the confirm stage",
        "test_openings": opened if winner else 0,
        "gpus_per_trial": 1.0,
        "seconds": draw.uniform(900, 2400),
    }


def compared(draw, found, ours, theirs, split, seeds):
    """A comparison as a result has it."""
    mean = found[ours]["confirmed"]["mean"] - found[theirs]["confirmed"]["mean"]
    if split == "test":
        mean = found[ours]["test_accuracy"]["mean"] - found[theirs]["test_accuracy"]["mean"]
    error = draw.uniform(0.002, 0.009)
    half = 2.1 * error
    known = split == "confirm" or seeds > 1
    return {
        "ours": ours,
        "theirs": theirs,
        "split": split,
        "mean": mean,
        "standard_error": error if known else None,
        "interval": [mean - half, mean + half] if known else None,
        "pairs": 5 if split == "confirm" else seeds,
        "reliable": known and abs(mean) > half,
    }


def vtab(seed=0, name="tasks-1"):
    """Results of the 19 tasks; of some the default won, or a winner without a teacher."""
    won = {2: "default", 6: "alone", 10: "default", 13: "alone", 17: "default"}
    return [result(task, seed, f"{name}-{task}", won.get(place, "winner")) for place, task in enumerate(ORDER)]
