"""What a cluster of machines made by `ray up` costs: `PYTHONPATH=tests python -m benchmarks.cluster`, as root."""

import json
import statistics
import sys
import time

from machines import Machines, lacking
from rayup import HEAD, UP, Cluster, bring, searching

SIZES = (150, 350)  # MB of weights
REPEATS = 3
# On the head: what two machines take to have such weights, and then a second process of theirs.
SUPPLY = """
import hashlib, json, os, sys, time
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from idat_tune import data, weights
from idat_tune.worker import supply

folder = Path("heavy")
folder.mkdir(exist_ok=True)
os.environ[weights.FOLDER] = str(folder.absolute())
file = folder / "vit_base_patch16_224.augreg_in21k.safetensors"
file.write_bytes(os.urandom(int(sys.argv[1]) * 10**6))
ray.init("auto", log_to_driver=False, logging_level="ERROR")


class Process:
    def warm(self, wanted):
        return supply._has_images(wanted)

    def supplied(self, wanted):
        began = time.perf_counter()
        supply.supply(wanted)
        return time.perf_counter() - began


here = ray.get_runtime_context().get_node_id()
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
known = {"vit_base": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}}
data.register_own()
wanted = supply.wanted("birds", data.content_hash("birds"), known)
for _ in range(2):
    at = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    processes = [ray.remote(Process).options(num_cpus=0, scheduling_strategy=one).remote() for one in at]
    ray.get([process.warm.remote(wanted) for process in processes])
    print(json.dumps(ray.get([process.supplied.remote(wanted) for process in processes])))
"""


def begun(machines: Machines) -> None:
    """Seconds to the first trained trial of another machine than the head."""
    cluster = Cluster(machines, range(2, 4))
    cluster.prepare()
    began = time.perf_counter()
    machines.hub(UP)
    up = time.perf_counter() - began
    bring(machines.disk(HEAD))
    cluster.run("idat-tune data import --from pictures --task birds")
    given = time.perf_counter() - began
    search = cluster.begin(searching("first", "--no-confirm"))
    while not cluster.nodes("first") - {"machine-1"}:
        time.sleep(0.05)
    first = time.perf_counter() - began
    search.communicate()
    print(f"`ray up` ended after {up:.1f} s, the search was given after {given:.1f} s; ", end="")
    print(f"the first trial on another machine had ended after {first:.1f} s", flush=True)
    cluster.whole()


def supplied(machines: Machines, megabytes: int) -> str:
    """A row: seconds to have weights on two machines at once."""
    cluster = Cluster(machines, range(2, 4))
    (machines.disk(HEAD) / "supply.py").write_text(SUPPLY)
    found = []
    for _ in range(REPEATS):
        machines.ssh(2, "rm -rf ~/.cache/idat-tune/supplied")
        machines.ssh(3, "rm -rf ~/.cache/idat-tune/supplied")
        found.append([json.loads(line) for line in cluster.run(f"python supply.py {megabytes}").stdout.splitlines()])
    first = [max(run[0]) for run in found]
    second = [max(run[1]) for run in found]
    return (
        f"| {megabytes} | {statistics.median(first):.1f} ({min(first):.1f} to {max(first):.1f}) | "
        f"{statistics.median(second):.2f} |"
    )


def main() -> None:
    reason = lacking()
    if reason:
        sys.exit(reason)
    with Machines(3) as machines:
        begun(machines)
        print("\n| MB | s to two machines at once, median of 3 | s of a second process there |\n|---|---|---|")
        for megabytes in SIZES:
            print(supplied(machines, megabytes), flush=True)


if __name__ == "__main__":
    main()
