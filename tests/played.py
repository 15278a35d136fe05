"""Searches that were never trained, for tests of their pages: the real searcher, on results that are made up here."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from test_journal import epoch
from test_searcher import TENSORS, a_plan, begin, run_one

from idat_tune import features, predictions, tasks
from idat_tune.data.folds import folds_per_repeat
from idat_tune.journal import COMPLETE, CONFIRM, FAILED, FINAL, TEST, Journal
from idat_tune.journal.hits import packed
from idat_tune.metrics import WORST, score
from idat_tune.predictions import Predictions, Run
from idat_tune.report.task import write
from idat_tune.search import finish
from idat_tune.tasks import Task

HOSTILE = (
    '</title><script>alert(1)</script><img src="http://example.invalid/x.png" onerror=alert(2)> & "co" \'lon\' \x1b[2J'
)


@dataclass
class Made:
    """A search, its result, its page."""

    folder: Path
    content: dict[str, Any]
    journal: Journal
    result: dict[str, Any]
    page: Path

    @property
    def text(self):
        return self.page.read_text()


def own_task(classes, name="mine", title="Mine", class_names=None, test=600):
    """A task of somebody's own."""
    names = class_names or tuple(f"class {label}" for label in range(classes))
    return tasks.register(Task(name, title, "own", classes, test, 1e-2, 5e-5, 0.0, (), tuple(names), "glyph_base", 4))


def made(out, task="digits", most=10_000, epochs=4, fails=lambda payload: False, gain=1.0, best=0.9, **changes):
    """Play a search to its end, or until `most` trials have run; `gain` is what tuning brings, from 0 to 1."""
    settings = {"task": task, "trials": 12, "fixed": {"epochs": epochs}, **changes}
    plan = a_plan(out, **settings)
    searching, live, ran = begin(plan), {}, 0
    while ran < most:
        payload = searching.suggest(str(ran)) if len(live) < 2 else None
        if isinstance(payload, dict):
            live[str(ran)] = payload
            ran += 1
        elif not live:
            break
        if len(live) == 2 or not isinstance(payload, dict):
            number = next(iter(live))
            run_one(
                searching, number, (given := live.pop(number)), results_of(given, fails, gain, best, plan.task.test)
            )
    journal = searching.journal
    for record in journal.of(CONFIRM):
        keep(plan, record)
    result = finish.kept(finish.result(plan, journal, "", 61.0))
    content = searching.manifest.content
    known = None if most < 10_000 else result
    return Made(plan.folder, content, journal, result, write(plan.folder, content, journal, known))


def accuracy_of(config, gain, best):
    """The nearer the learning rate to 0.01 and the wider the adapter, the better; luck by the seed."""
    luck = random.Random(str(sorted(config.items()))).gauss(0, 0.01)
    wide = min(config["adapter.hidden_dim"], 32) / 32
    away = abs(np.log10(config["optim.lr"] / 0.02))
    return float(np.clip(best - 0.25 * gain * (1 - wide) - 0.2 * away + luck, 0.02, 0.995))


def results_of(payload, fails, gain, best, test):
    draw = random.Random(payload["id"])
    if payload["stage"] == TEST:
        rows = []
        for name, given in payload["students"].items():
            hits = np.array([draw.random() for _ in range(test)]) < accuracy_of(given["config"], gain, best)
            rows.append([name, float(hits.mean()), 0.1, packed(hits)])
        return [{"epoch": 0, "score": WORST, "status": COMPLETE, "done": True, "tested": rows}]
    if fails(payload):
        return [{"score": WORST, "status": FAILED, "done": True, "reason": "Diverged: the loss of epoch 0 is nan"}]
    accuracy, results = accuracy_of(payload["config"], gain, best), []
    for number in range(payload["config"]["epochs"]):
        last = number + 1 == payload["config"]["epochs"]
        reached = round(200 * accuracy * (1 - 0.5 ** (number + 2))) / 200
        result = {**epoch(number, reached, 0.5).as_dict(), "score": score(reached, 0.5, 200), "val_images": 200}
        result |= {"status": COMPLETE if last else "running", "trainable_params": 3000, "done": last}
        if last and payload["stage"] == CONFIRM:
            result["hits"] = packed(np.arange(200) < 200 * reached)
        results.append(result | ({"state": TENSORS} if last and payload["stage"] == FINAL else {}))
    return results


def keep(plan, record):
    """What a confirm run said of its images: right as often as its accuracy has it."""
    task, draw = plan.task, np.random.default_rng(record.fold)
    folds = folds_per_repeat(task.train, task.val)
    images = np.arange(record.fold % folds, task.train + task.val, folds)
    labels = images * 7 % task.classes
    said = np.where(np.arange(len(images)) < len(images) * record.val_accuracy, labels, (labels + 1) % task.classes)
    logits = draw.normal(size=(len(images), task.classes)).astype(np.float32)
    logits[np.arange(len(images)), said] += 6
    run = Run(record.id, CONFIRM, record.contender, record.fold, record.config["seed"])
    file = predictions.encoded(task.name, Predictions(run, images, labels, logits, None))
    predictions.keep(plan.folder, record.id, file)
    if record.fold == features.FOLD:
        shown, of_shown = images[: features.MOST], labels[: features.MOST]
        grouped = draw.normal(size=(len(shown), 2)) + 4 * np.stack([of_shown % 5, of_shown % 3], axis=1)
        attention = draw.dirichlet(np.ones(16), len(shown)).reshape(-1, 4, 4)
        found = features.Features(shown, of_shown, grouped, attention)
        features.keep(plan.folder, record.id, features.encoded(found))
