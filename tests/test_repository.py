"""The files around the package: README, cluster file, Makefile, what must not be committed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import command
from test_architecture import HOUSE, PACKAGE, files_of

ROOT = PACKAGE.parent
README = (ROOT / "README.md").read_text()


def commands_of_the_readme():
    blocks = re.findall(r"^```bash\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("idat-tune ")]


def options_of(command):
    """The long options that `idat-tune COMMAND` knows, from the program itself."""
    import typer.main

    from idat_tune.cli.commands import app

    group = typer.main.get_command(app)
    found = group
    for word in command:
        if word in getattr(found, "commands", {}):
            found = found.commands[word]
    names = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return found, names


def test_the_readme_has_commands():
    assert len(commands_of_the_readme()) >= 12


@pytest.mark.parametrize("line", commands_of_the_readme())
def test_every_command_and_option_in_the_readme_exists(line):
    words = shlex.split(line)[1:]
    found, known = options_of(words)
    assert found.name in words or words[0].startswith("--"), f"{line}: no such command"
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in {*known, "--help"}, f"{line}: no option {word}"


@pytest.mark.slow
def test_the_first_commands_and_the_python_block_of_the_readme_run_as_pasted(tmp_path):
    first = README.split("## The first ten minutes")[1].split("\n## ")[0]
    wanted = ("idat-tune train", "idat-tune data export", "idat-tune predict")
    for line in (line for line in commands_of_the_readme() if line in first and line.startswith(wanted)):
        done = command(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    use, follow = re.findall(r"^```python\n(.*?)^```", first, re.DOTALL | re.MULTILINE)
    answer, *epochs = python(use, tmp_path)
    assert answer.startswith("[('")
    assert [line.split()[0] for line in epochs] == ["0", "1", "2"]
    short = follow.replace("trials=8", "trials=3, fixed={'epochs': 1}, folds=0, seeds=1")
    assert short != follow
    assert {"arm-default complete", "test complete"} <= {" ".join(line.split()[:2]) for line in python(short, tmp_path)}


def python(block, folder):
    """The lines that a program prints there."""
    run = [sys.executable, "-W", "error:::idat_tune", "-c", block]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_readmes_map_is_the_house():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", README, re.MULTILINE))
    assert list(rows) == list(HOUSE)
    for room, sentence in rows.items():
        door = files_of(room)[0].read_text()
        assert sentence in door.split('"""')[1], f"the README says of {room}: {sentence}"


def test_the_readme_names_only_files_that_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


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
