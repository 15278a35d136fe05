"""What is there and what is missing on this machine, each with its remedy."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from idat_tune import data, tasks
from idat_tune.backbones import BACKBONES, EMBEDDED
from idat_tune.errors import BadInput
from idat_tune.search import machine
from idat_tune.search.address import resolved, unused

PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna", "mlflow", "pyarrow", "scikit-learn")
_PAIR = ("vit_base", "vit_small")  # the student of most tasks, and its teacher
_VTAB, _OWN, _WEIGHTS = "VTAB-1K tasks", "own tasks", "weights "  # how findings are called


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""  # what to do where it is not ok
    needed: bool = True  # without it not even the embedded tasks can be searched


def examine(out: Path) -> Iterator[Finding]:
    """Look at everything that a search needs; `out` is where searches are kept."""
    yield Finding("Python", True, platform.python_version())
    yield from map(_package, PACKAGES)
    yield _machine()
    yield _cluster()
    yield _cuda()
    yield _tracking(out)
    yield _embedded()
    yield from _vtab()
    yield _own()
    yield from map(_weights, (name for name in BACKBONES if name not in EMBEDDED))


def summary(findings: Sequence[Finding], command: str) -> str:
    """What works now, what does not, and the next step, in one sentence; `command` is how this program is called."""
    broken = [finding for finding in findings if finding.needed and not finding.ok]
    if broken:
        what = ", ".join(finding.what for finding in broken)
        return f"Nothing can be searched before this is mended: {what}; the next step: {broken[0].remedy}."
    there = {finding.what for finding in findings if finding.ok}
    pretrained = all(_WEIGHTS + name in there for name in _PAIR)
    own = data.own_tasks()[0].name if _OWN in there else ""
    works = ["the embedded tasks"]
    works += [_VTAB] * (pretrained and _VTAB in there)
    works += [_OWN if pretrained else f"{_OWN} with the student glyph_base"] * bool(own)
    absent = [what for what in (_VTAB, _OWN, "CUDA") if what not in there]
    absent += [f"weights of {' and '.join(_PAIR)}"] * (not pretrained)
    but = f"; not there yet: {', '.join(absent)} (the lines above have the way)" * bool(absent)
    task = own or ("cifar" if pretrained and _VTAB in there else "digits")
    student = " --set student=glyph_base" * bool(own and not pretrained)
    return f"What can be searched now: {', '.join(works)}{but}; the next step: {command} search --task {task}{student}"


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "not installed", f"pip install {name}")


def _machine() -> Finding:
    free = shutil.disk_usage(machine.SHARED).free / 1e9 if machine.SHARED.is_dir() else 0.0
    found = f"{os.cpu_count()} cores, {free:.1f} GB of shared memory"
    try:
        folder = machine.ray_folder()
        machine.store(folder)
    except BadInput as failure:
        return Finding("Ray's store", False, found, str(failure))
    return Finding("Ray's store", True, f"{found}, its files in {folder}")


def _cluster() -> Finding:
    """A search starts Ray of its own, whatever this says."""
    head = resolved(None)
    used = head and f"this machine is the head of the one at {head}, which searches use; --address local: they do not"
    return Finding("Ray clusters", True, used or unused() or "none that --address auto would use")


def _cuda() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("CUDA", True, names)
    remedy = "none needed for the embedded tasks; for VTAB tasks use a machine with an NVIDIA GPU and its driver"
    return Finding("CUDA", False, "no GPU; runs go to the CPU", remedy, needed=False)


def _tracking(out: Path) -> Finding:
    from idat_tune import tracking

    try:
        tracking.check()
    except BadInput as failure:
        found, _, remedy = str(failure).partition("; ")
        return Finding("MLflow store", False, found, remedy)
    folder = out.absolute()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = os.access(nearest, os.W_OK)
    return Finding("MLflow store", writable, tracking.uri(out), f"{nearest} cannot be written; choose another --out")


def _embedded() -> Finding:
    from idat_tune import embedded

    try:
        for name in EMBEDDED:
            embedded.create_backbone(name)
    except BadInput as failure:
        return Finding("embedded backbones", False, str(failure), "install idat-tune again")
    return Finding("embedded backbones", True, ", ".join(EMBEDDED))


def _vtab() -> Iterator[Finding]:
    missing = []
    known = [task.name for task in tasks.select(["all"])]
    for name in known:
        try:
            data.require(name)
        except BadInput:
            missing.append(name)
    found = f"{len(known) - len(missing)} of {len(known)} in {data.folder()}"
    remedy = f"idat-tune data import --from FOLDER (missing: {', '.join(missing)})"
    yield Finding(_VTAB, not missing, found, remedy, needed=False)


def _own() -> Finding:
    found = [task.name for task in data.own_tasks()]
    remedy = "idat-tune data import --from PHOTOS --task NAME"
    return Finding(_OWN, bool(found), ", ".join(found) or f"none in {data.folder()}", remedy, needed=False)


def _weights(name: str) -> Finding:
    from idat_tune import model

    remedy = "downloaded when first used; without network name a folder with the file in IDAT_TUNE_WEIGHTS"
    try:
        path = model.cached_weights(name)
    except BadInput as failure:
        return Finding(_WEIGHTS + name, False, str(failure), remedy, needed=False)
    return Finding(_WEIGHTS + name, path is not None, str(path or "not in the cache"), remedy, needed=False)
