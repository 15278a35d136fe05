"""What images cost: import, the one-time decode, a warm start, sharing: `python -m benchmarks.data`."""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from idat_tune import data, tasks
from idat_tune.data import pixels

TASK = "dtd"
IMAGES = {"train800": 800, "val200": 200, "test": 1880}
SIZE = (500, 375)  # pixels; such as DTD's are in the mean
PROCESSES = 4

START = """
import sys, time
from idat_tune import data
images = data.load("dtd", "trainval")
print(time.time() - float(sys.argv[1]))
"""
HOLD = """
from idat_tune import data
images = data.load("dtd", "trainval")
images.pixels.sum()  # every page is touched
print("ready", flush=True)
input()
"""


def make(folder: Path) -> None:
    """The task in the prepared layout: smooth noise as JPEG of quality 75, so about the size of photographs."""
    rng = np.random.default_rng(0)
    for name, count in IMAGES.items():
        (folder / "images" / name).mkdir(parents=True)
        lines = []
        for i in range(count):
            small = Image.fromarray(rng.integers(0, 256, (SIZE[1] // 4, SIZE[0] // 4, 3), dtype=np.uint8))
            image = small.resize(SIZE).filter(ImageFilter.GaussianBlur(1))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG")
            (folder / f"images/{name}/{i:06d}.jpg").write_bytes(buffer.getvalue())
            lines.append(f"images/{name}/{i:06d}.jpg {i % tasks.get(TASK).classes}\n")
        (folder / f"{name}.txt").write_text("".join(lines))


def timed(work, *arguments, **options):
    began = time.perf_counter()
    result = work(*arguments, **options)
    return time.perf_counter() - began, result


def warm_start(code: str = START) -> float:
    """Median seconds from the start of a process to its images, of nine."""
    command = [sys.executable, "-c", code]
    runs = [subprocess.run([*command, str(time.time())], capture_output=True, text=True, check=True) for _ in range(9)]
    return statistics.median(float(run.stdout) for run in runs)


def held() -> tuple[list[int], list[int]]:
    """Bytes that each of some processes has to itself or shared by count (PSS), and that it seems to have (RSS)."""
    workers = [
        subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.stdout.readline()
    found = [memory(worker.pid) for worker in workers]
    for worker in workers:
        worker.communicate("\n")
    return [pss for pss, _ in found], [rss for _, rss in found]


def memory(process: int) -> tuple[int, int]:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kilobytes["Pss"] * 1024, kilobytes["Rss"] * 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        os.environ["IDAT_TUNE_DATA"] = f"{work}/store"
        make(Path(work) / TASK)
        total, some = sum(IMAGES.values()), IMAGES["train800"] + IMAGES["val200"]
        encoded = sum(file.stat().st_size for file in (Path(work) / TASK).rglob("*.jpg"))
        importing, _ = timed(data.import_, Path(work) / TASK)
        checking, _ = timed(data.verify, TASK)
        decoding, images = timed(data.load, TASK, "trainval")
        testing, _ = timed(lambda: [len(batch) for batch in data.batches(TASK, "test")])
        bare = warm_start("import sys, time, numpy; print(time.time() - float(sys.argv[1]))")
        start = warm_start()
        pss, rss = held()
        print(f"{total:,} JPEG images of {SIZE[0]} x {SIZE[1]}, {encoded / total / 1e3:.0f} kB each; ", end="")
        print(f"{pixels.workers()} threads; size 224.\n")
        print("| measured | |")
        print("|---|---|")
        print(f"| import, every image decoded, hashed and compared | {total / importing:.0f} images/s |")
        print(f"| verify | {total / checking:.0f} images/s |")
        print(f"| one-time decode of trainval into the cache | {some / decoding:.0f} images/s, {decoding:.1f} s |")
        print(f"| test, decoded as it streams | {IMAGES['test'] / testing:.0f} images/s |")
        print(f"| start of a process to a ready trainval, warm cache | {start:.3f} s |")
        print(f"| of that, Python and `import numpy` alone | {bare:.3f} s |")
        print(f"| pixels of trainval | {images.pixels.nbytes / 1e6:.0f} MB |")
        print(f"| {PROCESSES} processes that hold it: memory in all (sum of PSS) | {sum(pss) / 1e6:.0f} MB |")
        print(f"| the same if each had its own (sum of RSS) | {sum(rss) / 1e6:.0f} MB |")


if __name__ == "__main__":
    main()
