"""What a search says while it runs, line by line."""

import io
import re

import pytest
from rich.console import Console
from test_budget import Clock
from test_journal import epoch
from test_searcher import Everywhere, SilentTracker, a_plan, no_linear_arm, opened, run_all  # noqa: F401

from idat_tune.journal import EXPLORE, Journal
from idat_tune.progress import Progress
from idat_tune.search import searcher
from idat_tune.search.budget import Budget
from idat_tune.search.searcher import StagedSearcher


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """All lines of a whole search with made-up results, in which every trial takes ten seconds."""
    monkeypatch.setattr(searcher.ray, "put", lambda value: value)
    clock = Clock()
    plan = a_plan(tmp_path, trials=6, top_k=2, folds=2)
    journal, manifest = opened(plan)
    budget = Budget(plan, journal, clock=clock)
    progress = Progress(quiet=True, clock=clock)
    shown = io.StringIO()
    progress.console = Console(file=shown, soft_wrap=True)
    progress.on_search_start(plan, 1, [], budget)
    conducting = StagedSearcher(plan, journal, manifest, SilentTracker(), progress, Everywhere(), budget)
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


def test_every_explored_trial_says_how_many_there_are_and_how_long_it_took(lines):
    explored = [line for line in lines if re.match("(arm|portfolio|trial)-", line)]
    assert len(explored) == 6
    for number, line in enumerate(explored, start=1):
        assert f"  {number} of 6, " in line
        assert re.search(r", (\d+ \w+ ?)+  ", line)


def test_a_long_silence_is_broken_by_a_line_that_says_what_is_running(tmp_path):
    clock, shown = Clock(), io.StringIO()
    plan = a_plan(tmp_path, fixed={"epochs": 20})
    plan.folder.mkdir()
    progress = Progress(quiet=True, clock=clock)
    progress.console = Console(file=shown, soft_wrap=True)
    budget = Budget(plan, Journal(plan.folder / "journal.jsonl"), clock=clock)
    progress.on_search_start(plan, 1, [], budget)
    job = plan.first_jobs()[0]
    progress.on_trial_start(job)
    for number in range(10):
        clock.now += 20
        progress.on_epoch_end(job, epoch(number))
    _, *beats = shown.getvalue().splitlines()
    assert len(beats) == 2
    assert beats[0].startswith("search s  0 of 6 trials")
    assert beats[0].endswith("; arm-default epoch 4/20")
    assert "1 min 20 s, " in beats[0]


@pytest.mark.parametrize(("trials", "said"), [(3, ["3 arms are all the trials"]), (4, [])])
def test_trials_that_leave_the_sampler_nothing_are_said(tmp_path, trials, said):
    shown = io.StringIO()
    plan = a_plan(tmp_path, trials=trials)
    progress = Progress(quiet=True, clock=Clock())
    progress.console = Console(file=shown, soft_wrap=True)
    progress.on_search_start(plan, 1, [], None)
    found = [line for line in shown.getvalue().splitlines() if line.startswith("the sampler proposes nothing: ")]
    assert [line.removeprefix("the sampler proposes nothing: ") for line in found] == [
        f"{words}; more --trials let it" for words in said
    ]


def test_the_stages_are_announced_in_their_order(lines):
    words = ("search ", "exploring ends (trials)", "the winner is", "the test split is opened")
    places = [next(place for place, line in enumerate(lines) if line.startswith(word)) for word in words]
    assert places == sorted(places)
