"""Checks a file that a cluster is started from, before it costs money or opens a door."""

import re
from collections.abc import Iterator
from pathlib import Path

from idat_tune import reading
from idat_tune.clusters.findings import ERROR, NOTE, WARNING, Finding
from idat_tune.clusters.jobs import ray_job, sky
from idat_tune.clusters.ray_up import ray_up
from idat_tune.errors import BadInput, shown

__all__ = ["ERROR", "NOTE", "WARNING", "Finding", "check"]

EXAMPLES = re.compile(r"192\.0\.2\.\d+|sg-0123456789abcdef0|my-project|my-bucket|example\.com")


def check(path: Path) -> list[Finding]:
    """What is wrong with a file for `ray up`, KubeRay's RayJob or SkyPilot, or to know of it; the worst first.

    Raises:
        BadInput: it cannot be read, or is none of these.
    """
    text = reading.text(path, "cluster file")
    if "#SBATCH" in text:
        raise BadInput(f"{path} is a batch script of Slurm; `sbatch --test-only {path}` checks it")
    try:
        content = reading.yaml_value(text)
    except BadInput as failure:
        raise BadInput(f"cluster file {path}: {failure}") from None
    if not isinstance(content, dict):
        raise BadInput(f"cluster file {path}: it holds a mapping, with cluster_name and provider, not {shown(content)}")
    if content.get("kind") == "RayJob":
        found = [*ray_job(content)]
    elif "provider" in content:
        found = [*ray_up(content)]
    elif "resources" in content and "run" in content:
        found = [*sky(content)]
    else:
        raise BadInput(
            f"cluster file {path}: it is none for `ray up` (which has a provider), KubeRay (which is a RayJob) or "
            "SkyPilot (which has resources and run)"
        )
    found += [*_examples(text)]
    return sorted(found, key=lambda one: (ERROR, WARNING, NOTE).index(one.severity))


def _examples(text: str) -> Iterator[Finding]:
    """What is still as it came along."""
    for found in sorted({match[0] for match in EXAMPLES.finditer(text)}):
        yield Finding(WARNING, found, "it is the example's; put yours in its place")
