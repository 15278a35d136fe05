"""A cluster that grows from nothing: a head without GPUs, and machines that come when trials wait for them."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from idat_tune.journal import Journal

UP = {
    "max_workers": 2,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 1}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 2, "GPU": 1}, "max_workers": 2},
    },
}
WORDS = ["search", "--task", "digits", "--trials", "5", "--epochs", "2", "--no-confirm", "--seeds", "1", "--name", "n"]


class Provider:
    """Starts a machine with a pretended GPU whenever Ray says that somebody waits for one; two at most."""

    def __init__(self, cluster):
        from ray._raylet import GcsClient

        self.cluster, self.head, self.started = cluster, GcsClient(address=cluster.address), []

    def look(self):
        from ray.autoscaler.v2.sdk import get_cluster_resource_state

        asked = get_cluster_resource_state(self.head).pending_resource_requests
        if len(self.started) < 2 and any(request.request.resources_bundle.get("GPU") for request in asked):
            self.cluster.add_node(num_cpus=2, num_gpus=1, object_store_memory=10**8)
            self.started.append(time.time())


@pytest.mark.slow
def test_machines_with_gpus_come_because_trials_wait_and_the_head_trains_nothing(tmp_path):
    from ray.cluster_utils import Cluster

    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(UP))  # as `ray up` leaves it on the head
    token = Path.home() / ".ray" / "auth_token"
    if token.exists():  # which a Ray that this process had before may have asked for
        shutil.copytree(token.parent, tmp_path / ".ray")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "object_store_memory": 10**8})
    provider = Provider(cluster)
    running = subprocess.Popen(
        [sys.executable, "-m", "idat_tune.cli", *WORDS, "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HOME": str(tmp_path), "RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1"},
    )
    try:
        while running.poll() is None:
            provider.look()
            time.sleep(0.5)
        output, errors = running.communicate()
    finally:
        running.kill()
        cluster.shutdown()
    assert running.returncode == 0, errors
    assert json.loads(output)["finished"]
    assert (
        "1 machine, 1 core, none of them for trials yet; it may add 2 machines with 2 GPUs, for 2 more at once"
        in errors
    )
    journal = Journal(tmp_path / "runs" / "n" / "journal.jsonl")
    assert journal.state.gpus_per_trial == 1.0
    assert provider.started
    assert min(record.ended for record in journal.records) > provider.started[0]
