"""What a machine lacks: fetched once, as files that are what was offered."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import SimpleNamespace

import pytest
from birds import classes_of

from idat_tune import data, weights
from idat_tune.errors import Unfit
from idat_tune.search import driver
from idat_tune.worker import supply
from idat_tune.worker.supply import Depot, Offered, Wanted, fetched


class Source:
    """Files that are offered, and what was asked for of them."""

    def __init__(self, **contents):
        self.contents = {name.replace("__", "/"): content for name, content in contents.items()}
        self.asked = []

    @property
    def offered(self):
        return [Offered(n, len(c), hashlib.sha256(c).hexdigest()) for n, c in self.contents.items()]

    def piece(self, place, number):
        self.asked.append((place, number))
        return self.contents[place][number * supply.PIECE : (number + 1) * supply.PIECE]


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(supply, "PIECE", 10)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 99, 100])
def test_a_file_arrives_as_it_is_in_pieces(tmp_path, small_pieces, size):
    source = Source(data__birds__task=os.urandom(size), weights__vit=b"w" * 25)
    mirror = fetched(tmp_path / "mirror", source.offered, source.piece, lambda it: it)
    assert {name: (mirror / name).read_bytes() for name in source.contents} == source.contents


def test_what_is_there_is_not_fetched_again(tmp_path, small_pieces):
    source = Source(one=b"x" * 35)
    for _ in range(2):
        fetched(tmp_path / "mirror", source.offered, source.piece, lambda it: it)
    assert len(source.asked) <= 4 + supply.AHEAD


def test_what_arrives_otherwise_leaves_nothing_and_is_fetched_anew(tmp_path, small_pieces):
    source = Source(one=b"x" * 35)
    offered = source.offered
    for wrong in (b"x" * 34, b"y" * 35, b""):
        source.contents["one"] = wrong
        with pytest.raises(Unfit, match="one did not arrive as it was sent"):
            fetched(tmp_path / "mirror", offered, source.piece, lambda it: it)
        assert not (tmp_path / "mirror").exists()
    source.contents["one"] = b"x" * 35
    assert (fetched(tmp_path / "mirror", offered, source.piece, lambda it: it) / "one").read_bytes() == b"x" * 35


def test_of_several_workers_one_fetches_and_the_others_wait_for_it(tmp_path, small_pieces):
    source, goes_on = Source(one=b"x" * 35), Event()

    def slowly(content):
        goes_on.wait(30)
        return content

    with ThreadPoolExecutor(3) as workers:
        all_of_them = [
            workers.submit(fetched, tmp_path / "mirror", source.offered, source.piece, slowly) for _ in range(3)
        ]
        goes_on.set()
        assert {worker.result(30) for worker in all_of_them} == {tmp_path / "mirror"}
    assert [piece for piece in source.asked if piece[1] == 0] == [("one", 0)]


def test_what_is_offered_is_hashed_once_however_many_machines_ask(tmp_path, monkeypatch):
    (tmp_path / "vit").write_bytes(b"w" * 25)
    read, depot = [], Depot("digits", {}, {})
    depot.files = {"weights/vit": tmp_path / "vit"}
    monkeypatch.setattr(supply, "_sha256", lambda path: read.append(path) or "sha")
    assert depot.offered() == depot.offered() == [Offered("weights/vit", 25, "sha")]
    assert read == [tmp_path / "vit"]


def test_what_another_process_has_fetched_is_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "none"))
    monkeypatch.setenv(weights.FOLDER, "")
    wanted = Wanted("digits", data.content_hash("digits"), {"vit_base": "sha"}, {}, depot=None)  # nobody to ask
    supply._mirror(wanted).mkdir(parents=True)
    monkeypatch.setattr(supply, "_has", lambda name, sha256: False)
    supply.supply(wanted)
    assert os.environ[weights.FOLDER] == str(supply._mirror(wanted) / "weights")


def test_nothing_is_offered_of_what_every_machine_has():
    assert Depot("digits", {}, {}).offered() == []


ELSEWHERE = """
import json, os, sys
from pathlib import Path
import timm
from ray.cluster_utils import Cluster
from safetensors.torch import save_file

import idat_tune
from idat_tune import data
from idat_tune.search import Callback, search

here = Path(sys.argv[1])
os.environ.update(IDAT_TUNE_DATA=str(here / "data"), IDAT_TUNE_WEIGHTS=str(here / "weights"), HF_HUB_OFFLINE="1")
(here / "weights").mkdir()
backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0)
save_file(backbone.state_dict(), here / "weights" / "vit_tiny_patch16_224.augreg_in21k.safetensors")
data.import_(here / "birds", ["birds"])

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**8})
nothing = {"IDAT_TUNE_DATA": str(here / "none"), "IDAT_TUNE_WEIGHTS": "", "XDG_CACHE_HOME": str(here / "elsewhere")}
cluster.add_node(num_cpus=2, object_store_memory=10**8, env_vars=nothing)


class Said(Callback):
    remarks = []

    def on_remark(self, sentence):
        self.remarks.append(sentence)


fixed = {"epochs": 1, "student": "vit_tiny_patch16_224.augreg_in21k", "teacher": "none", "image_size": 32}
options = {"trials": 1, "fixed": fixed, "folds": 0, "seeds": 1, "out": here / "runs", "name": "n"}
found = search("birds", **options, address=cluster.address, callbacks=[Said()])
there = sorted(str(path.relative_to(here / "elsewhere")) for path in (here / "elsewhere").rglob("*") if path.is_file())
print(json.dumps([found["trials"], found["winner"]["test_accuracy"], there, Said.remarks]))
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_machine_that_has_nothing_trains_own_images_on_own_weights_and_tests_them(tmp_path):
    classes_of(tmp_path / "birds", 20)
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    trials, tested, there, remarks = json.loads(done.stdout.splitlines()[-1])
    assert trials == {"complete": 1, "stopped": 0, "failed": 0}, remarks
    assert tested["seeds"] == 1
    assert [path for path in there if path.endswith("birds/test.parquet")]
    assert [path for path in there if path.endswith("augreg_in21k.safetensors")]


@pytest.mark.parametrize(("machines", "joined", "offers"), [(1, False, False), (1, True, True), (2, False, True)])
def test_what_machines_may_lack_is_offered_where_some_are_there_or_may_come(monkeypatch, machines, joined, offers):
    """On the head of a cluster that has no other machine yet, too."""
    nodes = [{"Alive": True}] * machines + [{"Alive": False}]
    monkeypatch.setattr(driver, "ray", SimpleNamespace(nodes=lambda: nodes))
    monkeypatch.setattr(driver, "wanted", lambda task, content_hash, known: "wanted")
    plan = SimpleNamespace(task=SimpleNamespace(name="digits"))
    assert driver.from_here(plan, {}, joined) == ("wanted" if offers else None)
