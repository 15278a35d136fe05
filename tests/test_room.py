"""The room for trials: counted machine by machine, and what an autoscaler may add to it."""

import pytest
import yaml

from idat_tune.errors import BadInput
from idat_tune.search.config import ResourcesConfig
from idat_tune.search.room import (
    MOST_AT_ONCE,
    Machine,
    Room,
    at_once,
    described,
    missing,
    parts,
    room,
    shared_gpu,
    there,
    to_come,
)


def a_room(machines, each=0.0, grows=False, **resources):
    return room(machines, each, ResourcesConfig(**resources), grows)


@pytest.mark.parametrize(
    ("cores", "gpus", "each", "resources", "wanted"),
    [
        (8, 0, 0.0, {}, Room(8, 8, 0.0)),
        (0.5, 0, 0.0, {}, Room(1, 1, 0.0)),
        (8, 0, 0.0, {"max_concurrent": 20}, Room(20, 20, 0.0)),
        (16, 2, 1.0, {}, Room(2, 2, 1.0)),
        (16, 2, 0.25, {"gpus_per_trial": 0.25}, Room(8, 8, 0.25)),
        (8, 0, 0.0, {"stacked": 4}, Room(32, 8, 0.0, 4)),
        (16, 2, 1.0, {"stacked": 4}, Room(8, 2, 1.0, 4)),
        (16, 2, 1.0, {"stacked": 4, "max_concurrent": 6}, Room(6, 2, 1.0, 4)),
        (16, 2, 1.0, {"stacked": 4, "max_concurrent": 3}, Room(3, 1, 1.0, 4)),
        (2, 0, 0.0, {"stacked": 8, "max_concurrent": 32}, Room(16, 2, 0.0, 8)),
    ],
)
def test_the_room_on_one_machine(cores, gpus, each, resources, wanted):
    found = a_room([Machine(cores, gpus)], each, **resources)
    assert found == wanted
    assert found.most == found.trials


@pytest.mark.parametrize(
    ("resources", "each", "whole"),
    [({}, 0.5, 2.0), ({"stacked": 4}, 1.0, 2.0), ({"stacked": 8, "max_concurrent": 2}, 1.0, 1.0)],
)
def test_trials_are_charged_all_that_their_processes_take(resources, each, whole):
    found = a_room([Machine(4, 2)], each, **resources)
    assert found.gpus_per_trial * found.trials == pytest.approx(whole)


@pytest.mark.parametrize("changes", [{"stacked": 0}, {"stacked": 17}, {"stacked": 2, "gpus_per_trial": 0.5}])
def test_what_cannot_be_stacked_is_refused(changes):
    with pytest.raises(BadInput, match="--stacked"):
        ResourcesConfig(**changes)


@pytest.mark.parametrize(
    ("machines", "each", "fit"),
    [
        ([(2, 0)], 0.0, 2),
        ([(16, 1)], 1.0, 1),
        ([(16, 1)], 0.25, 4),
        ([(4, 8)], 1.0, 4),
        ([(16, 2)], 0.0, 16),
        ([(16, 2)], 0.4, 4),  # two on each; the fifth would lie across both
        ([(16, 3)], 2.0, 1),
        ([(1, 0), (1, 4), (4, 1)], 1.0, 2),  # four cores in one, four GPUs in another
        ([(0.5, 0), (0.5, 0), (1.5, 0)], 0.0, 1),
        ([(8, 0), (8, 0)], 1.0, 0),  # no trial trains on the cores of a cluster with GPUs
    ],
)
def test_a_trial_has_its_core_and_its_gpu_in_one_machine(machines, each, fit):
    assert at_once([Machine(cpus, gpus) for cpus, gpus in machines], each) == fit


@pytest.mark.parametrize(("each", "count"), [(1.0, 1), (0.5, 2), (1 / 3, 3), (0.34, 2), (0.1, 10), (1 / 7, 7)])
def test_how_many_share_a_gpu(each, count):
    assert parts(each) == count


def test_a_cluster_takes_as_many_as_the_user_wants_and_no_more_than_a_driver_can_hear():
    two = [Machine(2), Machine(2)]
    assert a_room(two, grows=True) == Room(4, 4, 0.0, 1, MOST_AT_ONCE)
    assert a_room(two, grows=True, max_concurrent=3) == Room(3, 3, 0.0, 1, 3)
    assert a_room(two, grows=True, max_concurrent=9) == Room(4, 4, 0.0, 1, 9)  # five more as machines come
    found = a_room(two, grows=True, stacked=4, max_concurrent=30)
    assert found == Room(16, 4, 0.0, 4, 8)
    assert found.most == 32


def test_of_what_the_user_allows_each_has_its_part_and_the_last_one_all():
    found = room([Machine(8)], 0.0, ResourcesConfig(max_concurrent=8), True, 2)
    assert (found.trials, found.processes, found.most) == (4, 4, 8)


NODES = [
    {"Alive": True, "Resources": {"CPU": 4.0, "node:__internal_head__": 1.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "accelerator_type:A10G": 1.0}},
]


def test_only_machines_that_are_alive_count():
    assert there(NODES) == [Machine(4.0), Machine(8.0, 2.0, "A10G")]


UP = {
    "max_workers": 3,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 4}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 8}, "max_workers": 4},
        "gpu": {"resources": {"CPU": 4, "GPU": 1, "accelerator_type:T4": 1}, "max_workers": 2},
    },
}


def test_what_an_autoscaler_may_add_is_what_ray_up_left_word_of(tmp_path):
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(yaml.safe_dump(UP))
    assert to_come(file) == [Machine(4, 1, "T4"), Machine(4, 1, "T4"), Machine(8)]


def test_machines_that_have_come_are_not_expected_once_more():
    gpu, cpu, head = Machine(4, 1, "T4"), Machine(8), Machine(4)
    assert missing([gpu, gpu, cpu], [head, Machine(4, 1, "T4")]) == [gpu, cpu]
    assert missing([gpu], [head, gpu, gpu]) == []
    up = [head, *[gpu] * 8]
    found = a_room(up, 1.0, True)
    assert described(up, missing([gpu] * 8, up), found) == "9 machines, 8 GPUs (T4), 8 trials at once"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1",
        "max_workers: 2",
        "available_node_types: {a: b, c: {max_workers: many}, d: {max_workers: 2}}",
        "available_node_types: {a: {max_workers: 2, resources: none}}",
        "a: [",
        "\x00",
    ],
)
def test_a_file_that_says_nothing_of_it_adds_nothing(tmp_path, text):
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(text)
    assert at_once(to_come(file), 0.0) == 0
    assert to_come(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("kinds", "gb", "part"),
    [
        (["A10G"], 3.5, 1 / 2),  # five would fit; more than two are not known to pay
        (["A10G"], 12.0, 1.0),
        (["T4", "H100"], 8.0, 1.0),  # the smallest decides
        (["H100"], 30.0, 1 / 2),
        (["GeForce-of-tomorrow", "H100"], 1.0, 1.0),  # whose memory is not known
        ([""], 1.0, 1.0),
    ],
)
def test_trials_share_a_gpu_whose_memory_is_known_to_hold_them(kinds, gb, part):
    assert shared_gpu([Machine(8), *(Machine(8, 1, kind) for kind in kinds)], lambda: gb) == part


def test_memory_is_not_asked_for_where_it_would_change_nothing():
    assert shared_gpu([Machine(8, 1)], lambda: 1 / 0) == 1.0


@pytest.mark.parametrize(
    ("machines", "coming", "each", "resources", "words"),
    [
        ([Machine(1)], [], 0.0, {}, "1 machine, 1 core, 1 trial at once"),
        ([Machine(4), Machine(4)], [], 0.0, {"max_concurrent": 5}, "2 machines, 8 cores, 5 trials at once"),
        (
            [Machine(4), Machine(8, 2, "A10G"), Machine(8, 1, "T4")],
            [],
            0.5,
            {},
            "3 machines, 3 GPUs (A10G, T4), 6 trials at once",
        ),
        (
            [Machine(4)],
            [Machine(4, 1, "A10G")] * 8,
            1.0,
            {},
            "1 machine, 4 cores, none of them for trials yet; "
            "it may add 8 machines with 8 GPUs (A10G), for 8 more at once",
        ),
        ([Machine(4)], [Machine(4)] * 2, 0.0, {"max_concurrent": 4}, "1 machine, 4 cores, 4 trials at once"),
    ],
)
def test_what_will_be_used_is_one_line(machines, coming, each, resources, words):
    assert described(machines, coming, a_room(machines, each, True, **resources)) == words
