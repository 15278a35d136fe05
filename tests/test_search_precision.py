"""What a search computes in: one answer for all trials, wherever it goes on."""

import pytest

from idat_tune import space as spaces
from idat_tune.errors import BadInput
from idat_tune.journal import Journal
from idat_tune.journal.state import STARTED
from idat_tune.search import SearchConfig, precision
from idat_tune.search.checks import check_devices
from idat_tune.search.driver import drive
from idat_tune.search.manifest import JOURNAL
from idat_tune.search.plan import Plan
from idat_tune.search.room import Room
from idat_tune.space import Space

ON_CPUS, ON_GPUS = Room(2, 2, 0.0), Room(2, 2, 0.5)
SETTINGS = {"name": "s", "task": "dtd", "space": spaces.load("idat"), "trials": 6, "seeds": 2}


def settled(out, room=ON_CPUS, **changes):
    """The plan of a search that begins, or goes on, there."""
    plan = Plan.checked(SearchConfig.of(**{**SETTINGS, **changes}, out=out))
    plan.folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(plan.folder / JOURNAL)
    found = precision.settled(plan, journal, room)
    journal.decide(STARTED, gpus_per_trial=room.gpus, stacked=1, precision=found)
    return precision.held(plan, journal)


@pytest.fixture
def answers(monkeypatch):
    """What the workers would say, one after the other."""
    given = []
    monkeypatch.setattr(precision.ray, "remote", lambda **_: lambda of: type("Remote", (), {"remote": lambda _: None}))
    monkeypatch.setattr(precision.ray, "get", lambda _, timeout: given.pop(0))
    return given


@pytest.mark.parametrize("room", [ON_CPUS, ON_GPUS])
def test_all_trials_compute_in_what_the_first_worker_said_also_after_a_resume(tmp_path, answers, room):
    answers += ["bf16", "fp32"]
    for _ in range(2):
        plan = settled(tmp_path, room)
        configs = [*plan.arms().values(), *plan.sample(), *(job.config for job in plan.first_jobs())]
        assert {config.precision for config in configs} == {"bf16"}
    assert answers == ["fp32"]
    asked = Plan.checked(SearchConfig.of(**SETTINGS, out=tmp_path))
    assert precision.held(asked, Journal(asked.folder / JOURNAL)) == plan


def test_a_worker_without_the_device_says_so_in_a_sentence(tmp_path, monkeypatch):
    class Failed(precision.ray.exceptions.RayTaskError):
        cause = BadInput("device 'cuda' is not on this machine")

        def __init__(self):
            """As of a worker, with its trace."""

    def fail(_, timeout):
        raise Failed

    monkeypatch.setattr(precision.ray, "remote", lambda **_: lambda of: type("Remote", (), {"remote": lambda _: None}))
    monkeypatch.setattr(precision.ray, "get", fail)
    with pytest.raises(BadInput, match="^device 'cuda' is not on this machine$"):
        settled(tmp_path)


def test_a_device_that_is_not_there_is_refused_before_ray_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever tests before this one have left
    plan = Plan.checked(SearchConfig.of(**SETTINGS, fixed={"device": "cuda"}, out=tmp_path))
    with pytest.raises(BadInput, match="device 'cuda' is not on this machine"):
        next(drive([plan], plan.config, lambda plan: []))
    monkeypatch.setattr("ray.is_initialized", lambda: True)  # of a cluster, say
    check_devices([plan])
    assert list(tmp_path.iterdir()) == []


def test_what_is_asked_for_is_not_asked_of_anyone(tmp_path, answers):
    assert settled(tmp_path, fixed={"precision": "bf16"}).config_of({}).precision == "bf16"


def test_a_space_may_search_it(tmp_path, answers):
    searched = spaces.parse({"params": {"precision": {"choice": ["bf16", "fp32"]}}}, "mine")
    assert isinstance(searched, Space)
    assert {config.precision for config in settled(tmp_path, space=searched).sample()} == {"bf16", "fp32"}


def test_embedded_backbones_stay_in_fp32_on_cpus_without_asking(tmp_path, answers):
    plan = settled(tmp_path, task="digits", space=spaces.load("embedded"))
    assert {config.precision for config in plan.sample()} == {"fp32"}
