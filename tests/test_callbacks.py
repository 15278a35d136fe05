"""Callbacks: what one that a user would write is told, and what becomes of one that fails."""

import json

import pytest

from idat_tune.search import Callback, search
from idat_tune.search.callback import Callbacks


class CurveLogger(Callback):
    """As a user would write it: a line of JSON per epoch and trial, and the winner at the end."""

    def __init__(self, path):
        self.path = path

    def write(self, **values):
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def on_trial_start(self, job):
        self.write(event="start", trial=job.id, lr=job.config.optim.lr)

    def on_epoch_end(self, job, epoch):
        self.write(event="epoch", trial=job.id, epoch=epoch.epoch, accuracy=epoch.val_accuracy)

    def on_trial_end(self, record):
        self.write(event="end", trial=record.id, stage=record.stage, status=record.status, accuracy=record.val_accuracy)

    def on_winner(self, winner):
        self.write(event="winner", trial=winner.id)

    def on_search_end(self, result):
        self.write(event="done", test=result["winner"]["test_accuracy"]["mean"])


class Faulty(Callback):
    """Fails at the first epoch."""

    def __init__(self):
        self.called = 0

    def on_epoch_end(self, job, epoch):
        self.called += 1
        raise RuntimeError("no more\nroom")


class Remarks(Callback):
    def __init__(self):
        self.said = []

    def on_remark(self, sentence):
        self.said.append(sentence)


@pytest.mark.slow
def test_a_users_callbacks_follow_a_whole_search_and_one_that_fails_does_not_end_it(tmp_path):
    faulty, remarks, path = Faulty(), Remarks(), tmp_path / "curves.jsonl"
    found = search(
        "digits",
        trials=4,
        fixed={"epochs": 2},
        folds=2,
        seeds=1,
        out=tmp_path / "runs",
        callbacks=[faulty, CurveLogger(path), remarks],
    )
    told = [json.loads(line) for line in path.read_text().splitlines()]
    starts = [one["trial"] for one in told if one["event"] == "start"]
    ends = {one["trial"]: one for one in told if one["event"] == "end"}
    assert sorted(starts) == sorted(ends)
    assert {one["stage"] for one in ends.values()} == {"explore", "confirm", "final", "test"}
    for trial, end in ends.items():
        epochs = [one for one in told if one["event"] == "epoch" and one["trial"] == trial]
        assert [one["epoch"] for one in epochs] == list(range(len(epochs)))
        assert not epochs or epochs[-1]["accuracy"] == end["accuracy"]
    assert [one["trial"] for one in told if one["event"] == "winner"] == [found["winner"]["trial"]]
    assert told[-1] == {"event": "done", "test": found["winner"]["test_accuracy"]["mean"]}
    assert faulty.called == 1
    assert "callback Faulty failed (RuntimeError: no more) and is not called again" in remarks.said


def test_every_event_reaches_every_callback(monkeypatch):
    events = [name for name in vars(Callback) if name.startswith("on_")]
    assert set(events) <= set(vars(Callbacks))
    heard = []
    for name in events:
        monkeypatch.setattr(Callback, name, lambda self, *given, name=name: heard.append((name, given)))
    for name in events:
        getattr(Callbacks([Callback(), Callback()]), name)("this", "and that")
        assert heard == [(name, ("this", "and that"))] * 2
        heard.clear()


def test_two_that_fail_at_once_are_both_left_out():
    class Deaf(Callback):
        def on_remark(self, sentence):
            raise RuntimeError("deaf")

        def on_interrupt(self):
            raise RuntimeError("mute")

    remarks = Remarks()
    callbacks = Callbacks([Deaf(), Deaf(), remarks])
    callbacks.on_interrupt()
    assert callbacks.left == [remarks]
    assert remarks.said


def test_ctrl_c_in_a_callback_goes_through():
    class Stopping(Callback):
        def on_remark(self, sentence):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Callbacks([Stopping()]).on_remark("")
