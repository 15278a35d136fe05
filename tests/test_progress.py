"""What a search says while it runs, line by line."""

import io
import re

import pytest
from rich.console import Console
from test_budget import Clock
from test_conductor import SilentTracker, a_plan, run_all

from idat_tune.journal import EXPLORE, Journal
from idat_tune.progress import Progress
from idat_tune.search import conductor
from idat_tune.search.budget import Budget
from idat_tune.search.conductor import Conductor
from idat_tune.search.manifest import Manifest
from idat_tune.search.plan import Resources


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """All lines of a whole search with made-up results, in which every trial takes ten seconds."""
    monkeypatch.setattr(conductor.ray, "put", lambda value: value)
    clock = Clock()
    plan = a_plan(tmp_path, trials=6, top_k=2, folds=2)
    plan.folder.mkdir(parents=True)
    journal, manifest = Journal(plan.folder / "journal.jsonl"), Manifest(plan, "hash")
    budget = Budget(plan, Resources(), journal, manifest, clock=clock)
    progress = Progress(quiet=True, clock=clock)
    shown = io.StringIO()
    progress.console = Console(file=shown, soft_wrap=True)
    progress.search_started(plan, 1, [], budget)
    conducting = Conductor(plan, journal, manifest, SilentTracker(), progress, budget)
    while not conducting.finished:
        clock.now += 10
        run_all(conducting, most=1)
    assert len(journal.of(EXPLORE)) == 6
    return shown.getvalue().splitlines()


def test_every_trial_has_a_line_that_says_how_much_time_is_left(lines):
    trials = [line for line in lines if re.match("(arm|trial|confirm|final)-", line)]
    assert len(trials) > 6
    assert all(re.search(r"  (\d+ \w+ ?)+left$", line) for line in trials)
    assert re.search(r" \d+ min \d+ s left$", trials[0])
    assert lines[-1].endswith("  0 s left")


def test_the_stages_are_announced_in_their_order(lines):
    words = ("search ", "exploring ends (trials)", "the winner is", "the test split is opened")
    places = [next(place for place, line in enumerate(lines) if line.startswith(word)) for word in words]
    assert places == sorted(places)
