"""A Ray cluster as `ray up` makes it, on machines of `machines.py`, and searches there as a user runs them."""

import json
import secrets
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from machines import ROOT, USER, Machines, until
from PIL import Image

HEAD = 1  # the machine that searches are started on
# The second version of the autoscaler starts one local worker of two, see ray#59905.
UP = "RAY_UP_enable_autoscaler_v2=0 ray up -y --no-config-cache cluster.yaml"
SMALL = f"--num-cpus=1 --object-store-memory={10**8} --disable-usage-stats"
BACKBONES = ("test_vit.r160_in1k", "test_vit2.r160_in1k")  # student and teacher: the smallest that timm has
SETTINGS = {"student": BACKBONES[0], "teacher": BACKBONES[1], "image_size": 32}
BIRDS = ("crow", "owl", "wren")


class Cluster:
    """A head and workers, each with one core for trials; the head is machine 1."""

    def __init__(self, machines: Machines, workers: range):
        """On machines that run."""
        self.machines = machines
        self.workers = workers

    def up(self) -> None:
        """`ray up`, and the workers have come."""
        self.prepare()
        self.machines.hub(UP)
        self.whole()

    def prepare(self) -> None:
        """All that `ray up` takes: the file, what `make wheel` makes but for the wheel, and Python on the machines."""
        addresses = {i: self.machines.address(i) for i in (HEAD, *self.workers)}
        home = self.machines.disk(0)
        (home / "dist" / "cluster").mkdir(parents=True)
        (home / "dist" / "cluster" / "auth_token").write_text(secrets.token_hex(32))
        description = described(addresses.pop(HEAD), list(addresses.values()))
        (home / "cluster.yaml").write_text(yaml.safe_dump(description))
        for i in (HEAD, *self.workers):
            self.machines.ssh(i, f"ln -s {sys.prefix} ~/venv")

    def run(self, command: str, i: int = HEAD) -> "subprocess.CompletedProcess[str]":
        """Run a command on a machine of the cluster, in a shell as `ray attach` gives it."""
        return self.machines.ssh(i, logged_in(command))

    def begin(self, command: str, terminal: bool = False) -> "subprocess.Popen[str]":
        """Likewise on the head, without waiting for it."""
        return self.machines.begin(HEAD, logged_in(command), terminal)

    def whole(self) -> None:
        """Wait until Ray runs on every machine of the cluster, the autoscaler having mended what there was to mend."""
        for i in (HEAD, *self.workers):
            until(lambda i=i: self.joined(i), f"machine {i} is part of the cluster")

    def joined(self, i: int) -> bool:
        """Whether Ray is up on a machine that runs."""
        lines = self.machines.running(i)
        return any("/raylet " in line for line in lines) and not any("ray start" in line for line in lines)

    def trains(self, i: int) -> bool:
        """Whether a machine has a worker of a search."""
        return any(line.startswith("ray::Host") for line in self.machines.running(i))

    def journal(self, name: str) -> list[dict]:
        """What a search has written so far."""
        file = self.machines.disk(HEAD) / "runs" / name / "journal.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def records(self, name: str) -> list[dict]:
        """Its trials that have ended."""
        return [line for line in self.journal(name) if "decision" not in line]

    def nodes(self, name: str) -> set[str]:
        """The machines that they ended on."""
        return {record["node"] for record in self.records(name)}


def logged_in(command: str) -> str:
    """A command as a login shell's."""
    return f"bash -lc {shlex.quote(command)}"


def described(head: str, workers: list[str]) -> dict:
    """`clusters/local.yaml` for those machines, without what needs a network: the program is on them already."""
    found = yaml.safe_load((ROOT / "clusters" / "local.yaml").read_text())
    return {
        **found,
        "provider": {**found["provider"], "head_ip": head, "worker_ips": workers},
        "auth": {**found["auth"], "ssh_user": USER},
        "min_workers": len(workers),
        "max_workers": len(workers),
        "setup_commands": [line for line in found["setup_commands"] if "pip install" not in line],
        "head_start_ray_commands": small(found["head_start_ray_commands"]),
        "worker_start_ray_commands": small(found["worker_start_ray_commands"]),
    }


def small(commands: list[str]) -> list[str]:
    """Commands that start Ray, with one core for trials and little shared memory."""
    return [f"{line} {SMALL}" if " start " in line else line for line in commands]


def searching(name: str, *options: str) -> str:
    """The command of a small search of own images on own weights."""
    fixed = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    few = "--trials 6 --epochs 12 --folds 2 --seeds 1 --stopping none"
    words = ["idat-tune", "search", "--task", "birds", "--weights", "weights", *fixed, *few.split()]
    return shlex.join([*words, "--name", name, *options])


def bring(home: Path) -> None:
    """Make a folder of pictures and one of weights, which no other machine has."""
    import timm
    import torch
    from safetensors.torch import save_file

    random = np.random.default_rng(0)
    for label, bird in enumerate(BIRDS):
        folder = home / "pictures" / bird
        folder.mkdir(parents=True)
        for number in range(40):
            pixels = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            pixels[:, 8 * label : 8 * label + 8] //= 2
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (home / "weights").mkdir()
    for seed, backbone in enumerate(BACKBONES):
        torch.manual_seed(seed)
        model = timm.create_model(backbone.partition(".")[0], num_classes=0)
        save_file(model.state_dict(), home / "weights" / f"{backbone}.safetensors")


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """The exit code of a command that was begun, and what it said."""
    out, said = process.communicate(timeout=600)
    return process.returncode, out, said
