"""Files with which others start Ray: KubeRay's RayJob, and a task of SkyPilot."""

from collections.abc import Iterator, Mapping
from typing import Any

from idat_tune.clusters.findings import ERROR, NOTE, WARNING, Finding, mapping
from idat_tune.clusters.mounts import NEVER, mounted
from idat_tune.errors import shown

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ray_job(content: Mapping[str, Any]) -> Iterator[Finding]:
    """A RayJob of KubeRay."""
    spec = mapping(content.get("spec"))
    cluster = mapping(spec.get("rayClusterSpec"))
    head = mapping(cluster.get("headGroupSpec"))
    if mapping(cluster.get("authOptions")).get("mode") != "token":
        yield Finding(
            ERROR, "spec.rayClusterSpec.authOptions", "without {mode: token} every pod that reaches it runs code on it"
        )
    if mapping(head.get("rayStartParams")).get("dashboard-host") in LOOPBACK:
        yield Finding(
            ERROR,
            "spec.rayClusterSpec.headGroupSpec.rayStartParams.dashboard-host",
            "KubeRay hands the job over through the dashboard, which then hears its own pod alone; leave it out",
        )
    if spec.get("shutdownAfterJobFinishes") is not True:
        yield Finding(
            WARNING, "spec.shutdownAfterJobFinishes", "not true, so its machines stay when the search is over"
        )
    if "idat-tune search" not in str(spec.get("entrypoint")):
        yield Finding(ERROR, "spec.entrypoint", f"it starts no search: {shown(spec.get('entrypoint'))}")
    elif "--name" not in str(spec.get("entrypoint")):
        yield Finding(WARNING, "spec.entrypoint", "without --name a job that is given again begins a new search")
    if not mapping(mapping(head.get("template")).get("spec")).get("volumes"):
        yield Finding(
            WARNING, "spec.rayClusterSpec.headGroupSpec", "no volume, so searches are lost with their pod; or --storage"
        )
    yield Finding(
        NOTE, "spec", "a RayJob, checked for what a search wants; `kubectl apply --dry-run=server` checks the rest"
    )


def sky(content: Mapping[str, Any]) -> Iterator[Finding]:
    """A task of SkyPilot."""
    run = str(content.get("run"))
    mounts = mapping(content.get("file_mounts"))
    yield from mounted({there: here for there, here in mounts.items() if isinstance(here, str) and "://" not in here})
    if content.get("workdir"):
        yield Finding(ERROR, "workdir", f"it sends the whole of {content['workdir']} to every machine; {NEVER}")
    if "idat-tune search" not in run:
        yield Finding(ERROR, "run", "it starts no search")
    if "RAY_AUTH_MODE=token" not in run:
        yield Finding(ERROR, "run", "without RAY_AUTH_MODE=token whoever reaches the machines' ports runs code on them")
    if any(words in line.partition("#")[0] for line in run.splitlines() for words in ("ray stop", "ray symmetric-run")):
        yield Finding(
            ERROR,
            "run",
            "`ray stop`, and `ray symmetric-run` with it, end the Ray by which SkyPilot itself works; "
            "~/sky_templates/ray/start_cluster starts one beside it",
        )
    if mapping(content.get("resources")).get("use_spot") and "--storage" not in run:
        yield Finding(WARNING, "run", "on spot machines without --storage a search is lost with the first of them")
    yield Finding(
        NOTE, "resources", "a task of SkyPilot, checked for what a search wants; `sky launch --dryrun` checks the rest"
    )
