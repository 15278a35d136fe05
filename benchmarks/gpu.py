"""Everything that only a GPU can show, part by part, within minutes: `bash benchmarks/gpu.sh [--out DIR]`."""

import argparse
import csv
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import ladder, trials
from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.engine.resident import Resident
from idat_tune.run import run_on

Found = dict[str, Any]
TASK = "gpu-patterns"  # what the search is for
TOP = 16  # kernels of a profile that are named
GROUPS = {  # of kernels, by what their names hold; the first that fits
    "attention": r"flash|fmha|attention|sdpa",
    "products": r"gemm|cutlass|xmma|nvjet|cublas|splitk|dot_kernel",
    "norm": r"layer_norm|LayerNorm",
    "optimizer": r"adam|multi_tensor",
    "copies": r"Memcpy|Memset|copy|Cat|index",
    "elementwise": r"elementwise|gelu|Gelu",
    "sums": r"reduce|softmax",
}


def machine(device: torch.device) -> Found:
    """What is measured on, and its two ceilings."""
    found: Found = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    import timm

    found |= {"timm": timm.__version__, "device": str(device), "tflops": ladder.matrix_rate(device)}
    if device.type == "cuda":
        found |= {"device": torch.cuda.get_device_name(), "driver": smi("driver_version")}
    there = torch.empty(2**28 if device.type == "cuda" else 2**22, device=device)
    other = torch.empty_like(there)
    seconds = min(ladder.timed(lambda: other.copy_(there), device) for _ in range(5))
    return found | {"copy_tb_per_s": 2 * there.nbytes / seconds / 1e12}


def smi(fields: str) -> str:
    """What nvidia-smi says of the first GPU."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def tests(device: torch.device) -> Found:
    """The tests that need CUDA."""
    several = ["-n", "4"] if find_spec("xdist") else []
    files = sorted(path for path in Path("tests").glob("test_*.py") if "mark.gpu" in path.read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *several, *map(str, files)]
    began = time.perf_counter()
    command += ["-rfE", "--tb=short", "--show-capture=no", "-W", "ignore"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "400"})
    print(done.stdout[-60_000:], flush=True)
    summary = [line for line in done.stdout.splitlines() if re.search(r"\d+ (passed|failed)", line)]
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {"summary": summary[-1:], "failed": failed, "seconds": time.perf_counter() - began}


def steps(device: torch.device, names: list[str]) -> Found:
    """The ladder, and where the time of its recorded rungs goes."""
    config = ladder.config_for(device)
    ways: dict[str, Any] = {}
    found = ladder.climbed(names, config, device, ways)
    made = ladder.rows(found, ladder.matrix_rate(device))
    print(ladder.table(made, device.type == "cuda"), flush=True)
    order = torch.randint(ladder.PAIRS[device.type][3], (5, config.batch_size))
    shown = {name: kernels(ways[name], order, device) for name in names if name in ("L4", "L6", "L7")}
    return {"rungs": made, "kernels": shown}


def kernels(way: Any, order: torch.Tensor, device: torch.device) -> Found:
    """Milliseconds per step by group of kernels, and the longest ones by name."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        way.run(order)
        if cuda:
            torch.cuda.synchronize()
    spent: dict[str, list[float]] = {}
    for event in profiler.events():
        took = event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
        if took and (event.device_type == torch.autograd.DeviceType.CUDA) is cuda:
            spent.setdefault(event.name, []).append(took / 1e3 / len(order))
    groups: dict[str, float] = {}
    for name, each in spent.items():
        group = next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), "other")
        groups[group] = groups.get(group, 0.0) + sum(each)
    longest = sorted(spent, key=lambda name: -sum(spent[name]))[:TOP]
    top = [[name[:110], sum(spent[name]), len(spent[name]) // len(order)] for name in longest]
    return {"groups": dict(sorted(groups.items(), key=lambda pair: -pair[1])), "longest": top}


def whole(device: torch.device) -> Found:
    """Set-ups, a whole trial, and the released protocol."""
    config = ladder.config_for(device)
    found: Found = {"set_ups": trials.set_ups(config, device)}
    print(found, flush=True)
    return found | trials.whole(config, device)


def noise(count: int, classes: int) -> Images:
    """Random images of 224 pixels."""
    random = np.random.default_rng(0)
    return Images(random.integers(0, 256, (count, 3, 224, 224), np.uint8), random.integers(0, classes, count))


def memory(device: torch.device, count: int = 200) -> Found:
    """What one worker holds after every trial of many on the embedded pair, of twelve shapes."""
    random = np.random.default_rng(0)
    images = Images(random.integers(0, 256, (400, 1, 32, 32), np.uint8), random.integers(0, 10, 400))
    rows, held = torch.arange(400), []
    config = RunConfig.for_task("digits", {"device": device.type, "epochs": 2, "optim.warmup_epochs": 0})
    resident = Resident(images, device)
    began = time.perf_counter()
    for number in range(count):
        kind = ("sequential", "parallel", "lora")[number % 3]
        changes = {"adapter.kind": kind, "adapter.hidden_dim": (4, 12)[number // 3 % 2], "seed": number}
        asked = config.updated({**changes, "teacher": (config.teacher, "none")[number // 6 % 2]})
        for _ in run_on(resident, asked, rows[:320], rows[320:]):
            pass
        held.append(torch.cuda.memory_reserved() / 1e9 if device.type == "cuda" else 0.0)
    grown = held[-1] - held[min(23, count - 1)]
    return {"grown_gb": grown, "reserved_gb": held[:: count // 10], "seconds": time.perf_counter() - began}


def one_of_several(device: torch.device, begin: float, seconds: float) -> Found:
    """Steps per second of a worker beside others, which begin at the same time."""
    config = ladder.config_for(device)
    way = ladder.rung("L6" if device.type == "cuda" else "L3", config, noise(256, config.classes), device)
    order = torch.randint(256, (4, config.batch_size))
    way.run(order)
    time.sleep(max(0.0, begin - time.time()))
    late, began, done = time.time() - begin, time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        way.run(order)[0].item()
        done += len(order)
    return {"steps_per_s": done / (time.perf_counter() - began), "late": late}


def several(device: torch.device, counts: tuple[int, ...] = (1, 2, 4)) -> Found:
    """Steps per second of all workers of one GPU together."""
    found = {}
    for count in counts:
        begin = time.time() + (25 if device.type == "cuda" else 20)
        command = [sys.executable, "-m", "benchmarks.gpu", "--device", device.type, "--worker", f"{begin},5"]
        each = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        said = [json.loads(one.communicate()[0].splitlines()[-1]) for one in each]
        found[str(count)] = {"steps_per_s": sum(one["steps_per_s"] for one in said), "workers": said}
        print(count, found[str(count)], flush=True)
    return found


def patterns(folder: Path, count: int = 1300, classes: int = 6) -> None:
    """A folder of small pictures that a random backbone can tell apart, more or less."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:64]
    for number in range(count):
        label = number % classes
        angle = np.pi * label / classes + random.normal(0, 0.12)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * random.uniform(0.3, 0.6) + random.uniform(0, 6))
        pixels = 128 + 60 * wave[..., None] + random.normal(0, 40, (64, 64, 3)) + random.uniform(-30, 30, 3)
        place = folder / f"class-{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")


SPACE = """# A search whose backbones have random weights: for its speed, not for its accuracy.
params:
  teacher:            {choice: [none, "random:vit_small"]}
  adapter.kind:       {choice: [sequential, parallel]}
  adapter.hidden_dim: {choice: [4, 8]}
  optim.lr:           {log_uniform: [1.0e-4, 1.0e-2]}
fixed: {student: "random:vit_base", epochs: EPOCHS}
"""


def search(device: torch.device) -> Found:
    """A whole search of an imported task: what `--dry-run` foresees, what it takes, and how busy the GPU is."""
    cuda = device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        patterns(home / "pictures", *(() if cuda else (120, 2)))
        space = SPACE.replace("EPOCHS", "6" if cuda else "2")
        if not cuda:
            space = space.replace("vit_base", "test_vit").replace("vit_small", "test_vit")
        (home / "space.yaml").write_text(space)
        environment = {**os.environ, "IDAT_TUNE_DATA": str(home / "data"), "OMP_NUM_THREADS": "1"}
        environment["HOME"] = str(home)
        said = ["--json"]

        def command(*arguments: str) -> subprocess.CompletedProcess[str]:
            line = [sys.executable, "-m", "idat_tune.cli", *arguments]
            done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=home)
            print(" ".join(arguments), done.returncode, done.stderr[-3000:], flush=True)
            return done

        command("data", "import", "--from", str(home / "pictures"), "--task", TASK, *(() if cuda else ("--any-size",)))
        asked = ["search", "--task", TASK, "--space", str(home / "space.yaml"), "--trials", "12" if cuda else "4"]
        asked += ["--folds", "3" if cuda else "2", "--seeds", "2", "--stopping", "none", *said]
        asked += ["--gpus-per-trial", "0.5"] if cuda else ["--max-concurrent", "2"]
        foreseen = json.loads(command(*asked, "--dry-run").stdout or "{}")
        log = home / "smi.csv"
        watch = watching(log) if cuda else None
        began = time.perf_counter()
        done = command(*asked, "--quiet")
        seconds = time.perf_counter() - began
        if watch:
            watch.terminate()
        result = json.loads(done.stdout or "{}")
        journal = next(iter(home.glob("runs/*/journal.jsonl")), None)
        runs = len(journal.read_text().splitlines()) if journal else 0
        found = {"rc": done.returncode, "wall_s": seconds, "runs": runs, "foreseen": foreseen, "result": result}
        return found | (used(log) if cuda else {})


def watching(log: Path) -> subprocess.Popen[bytes]:
    """A process that notes how busy the GPU is, twice a second."""
    query = "--query-gpu=timestamp,utilization.gpu,memory.used,power.draw"
    with log.open("w") as file:
        return subprocess.Popen(
            ["nvidia-smi", "-i", "0", query, "--format=csv,noheader,nounits", "-lms", "500"], stdout=file
        )


def used(log: Path) -> Found:
    """How busy the GPU was, over time: percent, and GB."""
    lines = [line for line in csv.reader(log.open()) if len(line) == 4]
    busy, taken = ([float(line[column]) for line in lines] for column in (1, 2))
    tenths = [
        statistics.fmean(busy[a:b] or [0]) for a, b in pairwise(np.linspace(0, len(busy), 21).astype(int).tolist())
    ]
    return {"busy_percent": statistics.fmean(busy or [0]), "busy_over_time": tenths, "peak_gb": max(taken or [0]) / 1e3}


RUNGS = os.environ.get("RUNGS", ",".join(ladder.LABELS)).split(",")
PARTS: dict[str, tuple[Callable[[torch.device], Found], int]] = {  # with the seconds that each may take
    "machine": (machine, 60),
    "steps": (lambda device: steps(device, RUNGS), 220),
    "whole": (whole, 110),
    "memory": (memory, 60),
    "several": (several, 110),
    "search": (search, 300),  # on some machines neither is done in three minutes: better in a call of their own
    "tests": (tests, 300),
}


def main() -> None:
    """Run the parts, each in a process of its own, as far as time allows; write gpu.json and gpu.md after each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    arguments.add_argument("--parts", default=",".join(PARTS), help="which, separated by commas")
    arguments.add_argument("--minutes", type=float, default=9.5, help="after which no part goes on")
    arguments.add_argument("--out", type=Path, default=Path("gpu"))
    arguments.add_argument("--part", help=argparse.SUPPRESS)
    arguments.add_argument("--worker", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    device = torch.device(given.device)
    if given.worker:
        begin, seconds = map(float, given.worker.split(","))
        print(json.dumps(one_of_several(device, begin, seconds)))
    elif given.part:
        found = PARTS[given.part][0](device)
        (given.out / f"{given.part}.part").write_text(json.dumps(found))
    else:
        all_parts(given)


def all_parts(given: argparse.Namespace) -> None:
    """One after the other; what one cannot do leaves the others as they are."""
    given.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * given.minutes
    found: Found = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")}
    for name in given.parts.split(","):
        began, most = time.monotonic(), min(PARTS[name][1], end - time.monotonic())
        if most < 5:
            found[name] = {"failure": "no time was left"}
            continue
        command = [sys.executable, "-m", "benchmarks.gpu", "--device", given.device, "--part", name]
        print(f"== {name}", flush=True)
        failure = None
        try:
            done = subprocess.run([*command, "--out", str(given.out)], timeout=most)
            failure = f"exit code {done.returncode}" if done.returncode else None
        except subprocess.TimeoutExpired:
            failure = f"not done within {most:.0f} s"
        part = given.out / f"{name}.part"
        found[name] = {"failure": failure} if failure else json.loads(part.read_text())
        part.unlink(missing_ok=True)
        found[name]["took_s"] = round(time.monotonic() - began, 1)
        print(f"== {name}: {failure or 'done'} in {found[name]['took_s']} s", flush=True)
        (given.out / "gpu.json").write_text(json.dumps(found, indent=1))
        (given.out / "gpu.md").write_text(as_markdown(found))
    print(as_markdown(found))


def as_markdown(found: Found) -> str:
    """What was found, as tables."""
    lines = [f"# On a GPU, {found['date']}", ""]
    for name, part in found.items():
        if name == "date":
            continue
        lines += [f"## {name}", ""]
        if "failure" in part:
            lines += [f"Failed: {part['failure']}", ""]
            continue
        if "rungs" in part:
            lines += [ladder.table(part["rungs"], True), ""]
            for rung, shown in part["kernels"].items():
                of_groups = ", ".join(f"{group} {ms:.2f}" for group, ms in shown["groups"].items())
                lines += [
                    f"{rung}, ms of kernels per step: {of_groups}",
                    "",
                    "| kernel | ms | calls |",
                    "|---|---:|---:|",
                ]
                lines += [f"| `{kernel}` | {ms:.3f} | {calls} |" for kernel, ms, calls in shown["longest"]] + [""]
            continue
        lines += ["| | |", "|---|---|"]
        lines += [f"| {key} | {short(value)} |" for key, value in part.items()] + [""]
    return "\n".join(lines)


def short(value: Any) -> str:
    """A value in a cell."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text.replace("|", "/") if len(text) < 700 else text[:700].replace("|", "/") + " ..."


if __name__ == "__main__":
    main()
