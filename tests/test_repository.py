"""The files around the package: README, cluster file, Makefile, what must not be committed."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from test_architecture import HOUSE, PACKAGE, files_of

ROOT = PACKAGE.parent
README = (ROOT / "README.md").read_text()


def test_the_readmes_map_is_the_house():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", README, re.MULTILINE))
    assert list(rows) == list(HOUSE)
    for room, sentence in rows.items():
        door = files_of(room)[0].read_text()
        assert sentence in door.split('"""')[1], f"the README says of {room}: {sentence}"


def test_ray_accepts_the_cluster_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(config)
    assert config["provider"]["type"] == "aws"
    assert config["head_node_type"] in config["available_node_types"]


def test_the_cluster_file_overrides_rays_defaults_for_installing_and_listening():
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert any("constraints.txt" in line for line in config["setup_commands"])
    assert any("--include-dashboard=false" in line for line in config["head_start_ray_commands"])


def test_nothing_committed_names_this_workplace():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    hosts = re.compile("python" + r"hosted|py" + r"pi\.org|/wo" + "rk/|/ro" + "ot/")
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".json", ""} and path.is_file():
            assert not hosts.search(path.read_text(errors="ignore")), name


def test_constraints_pin_exact_versions_without_addresses():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line) for line in pins)


def test_the_weights_that_we_ship_are_small():
    shipped = sum(path.stat().st_size for path in Path(PACKAGE / "embedded").rglob("*.safetensors"))
    assert 0 < shipped < 1_000_000
